"""What the log has behind a snapshot, and the pages of the snapshot had already."""

from collections.abc import Mapping

from twincast.delivery.cast import Cast


class Overlap:
    """The entries after a snapshot's position that its pages have shown.

    A page shows each twin as it is when the client takes the page, which may be newer than the snapshot. The stream
    goes on behind the snapshot's position, so the log has these entries again: no device may go back in time for them.
    """

    __slots__ = ("_seqs", "until")

    def __init__(self) -> None:
        self._seqs: dict[str, int] = {}
        self.until = 0
        """The seq of the last of these entries: behind it the log has nothing that a page has shown."""

    def note(self, newer: Mapping[str, int]) -> None:
        """Note the twins of a page that are newer than the snapshot: devices with their seqs."""
        self._seqs.update(newer)
        self.until = max(self.until, *newer.values())

    def left_out_of(self, cast: Cast) -> Cast:
        """Return a cast without the entries that a page has shown."""
        shown = self._seqs
        return cast.pick(
            [
                index
                for index, entry in enumerate(cast.entries)
                if not entry.changes_twin or entry.seq > shown.get(entry.subject, 0)
            ]
        )
