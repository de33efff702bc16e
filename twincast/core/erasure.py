"""What a deletion with the scope `history` takes: the entries of a device up to it. Pure, the same for every journal.

Each leaves its place, an `Erased`, whose time is that of the entry before it that stays: the log keeps its numbering,
and what is left says neither which entries were the device's nor when they came.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from twincast.core.model import Deleted, Entry, Erased

HeldBy = Literal["files", "stream"]
Erasures = Mapping[str, int]
"""By device, the position up to which its entries are erased, without the one that stands there."""


class Erasure(NamedTuple):
    """A deletion of a history that is in the log."""

    seq: int
    """Its position: what goes is before it."""
    device_id: str
    at_utc: str
    held_by: tuple[HeldBy, ...] = ("files",)
    """What still has it: the server's files, the stream of a shared log."""


def erasures_in(entries: Iterable[Entry]) -> list[Erasure]:
    """Return the deletions among entries that erase a history, in order."""
    return [
        Erasure(entry.seq, entry.device_id, entry.timestamp_utc)
        for entry in entries
        if isinstance(entry, Deleted) and entry.erases
    ]


def up_to(erasures: Iterable[Erasure]) -> dict[str, int]:
    """Return up to where the entries of each device are erased."""
    found: dict[str, int] = {}
    for erasure in erasures:
        found[erasure.device_id] = max(erasure.seq, found.get(erasure.device_id, 0))
    return found


def is_erased(entry: Entry, erasures: Erasures) -> bool:
    """Whether an entry is one that is to go."""
    return entry.seq < erasures.get(entry.subject, 0)


def without_erased(entries: Sequence[Entry], erasures: Erasures) -> Sequence[Entry]:
    """Return neighbouring entries of the log with places where entries are erased; these very ones if none is."""
    if not erasures or not any(is_erased(entry, erasures) for entry in entries):
        return entries
    at_utc = next((entry.timestamp_utc for entry in entries if not is_erased(entry, erasures)), "")
    kept: list[Entry] = []
    for entry in entries:
        if is_erased(entry, erasures):
            kept.append(Erased(at_utc or entry.timestamp_utc, seq=entry.seq, epoch=entry.epoch))
        else:
            at_utc = entry.timestamp_utc
            kept.append(entry)
    return kept
