"""How much of the log is kept, when there is more than that, and when a part of it is closed; pure."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from twincast.core.pattern import Pattern
from twincast.errors import SettingUnusable, ValidationFailed

WAL_MAX_BYTES = 16 * 1024 * 1024
"""The -wal is cut back to this, once all of it is in the file: SQLite by itself keeps it at its largest size."""
HEADROOM_BYTES = WAL_MAX_BYTES + 8 * 1024 * 1024
"""This much of `keep_bytes` stays free: for the -wal, and for what is appended before the next look."""
ENTRY_MIN_BYTES = 128
"""The least that an entry takes of the file, for planning: 103 were measured for a small reading."""
PARTITION_ENTRIES = 1_000_000
"""How many entries one partition has: so it takes about 60 MB, and some seconds of a core to make."""
PARTITION_MIN_ENTRIES = 100_000
"""If `keep_bytes` has no room for several partitions of so many, nothing is closed: the log itself is small then."""
PARTITION_MAX_AGE_S = 31 * 86_400.0
AGED_PARTITION_ENTRIES = 50_000
"""A partition is closed for its age only if it has so many entries: fewer are read fast enough where they are."""
AGED_SUMMED_ENTRIES = 1_000
"""The same where sums are left of what is kept no longer, or some devices are kept for less: that is of partitions."""
KEEP_PARTS, KEEP_BYTES_PARTS = 4, 16
"""What is kept is made of at least so many partitions, each of which goes as a whole: by age, by bytes."""
LARGE_PARTS = 20
"""The same of large entries, of which fewer make a partition where sums are left: what is made of one, a copy and the
new file, then takes no more than is reserved for closing and for what comes meanwhile."""
CLOSING_BYTES = 192
"""What closing takes of the disk for each entry, beside the entry itself: a copy, and the new file."""


class Retention(NamedTuple):
    """How much of the log is kept. If both bounds are set, the smaller one decides; without any, everything is kept."""

    keep_s: float | None = None
    """How old an entry may be."""
    keep_bytes: int | None = None
    """How much of the disk the journal may take, file and -wal."""
    keep_entries: int = 0
    """How many of the newest entries always stay, whatever the two bounds say: clients resume from them."""
    partition_entries: int = PARTITION_ENTRIES
    """How many entries are closed at once; 0 for none."""
    keep_rollups_s: float | None = None
    """How old what is left of a closed partition may be, its sums by hour and day; None if nothing is left of it."""
    keep_for: tuple[tuple[str, float], ...] = ()
    """How old entries of some devices may be in closed partitions, in seconds, by pattern. The first one that selects a
    device counts."""

    @property
    def is_bounded(self) -> bool:
        """Whether any entry is ever trimmed."""
        return self.keep_s is not None or self.keep_bytes is not None

    @property
    def log_max_bytes(self) -> int | None:
        """How much of the journal may be in use."""
        if self.keep_bytes is None:
            return None
        return self.keep_bytes - HEADROOM_BYTES - CLOSING_BYTES * self.closes_at_entries

    @property
    def closed_max_bytes(self) -> int | None:
        """The same, beyond which closed partitions go, and sums that are left of some.

        Where sums are left it is less: what comes while the next partition is closed has room, and nothing that was
        never closed goes for it, of which no sums are left.
        """
        bound = self.log_max_bytes
        return bound - ENTRY_MIN_BYTES * self.closes_at_entries if bound is not None and self.leaves_sums else bound

    @property
    def closes_at_entries(self) -> int:
        """How many entries make a partition here; 0 if there are none: what is kept is too little for several."""
        if self.keep_bytes is None:
            return self.partition_entries
        fitting = (self.keep_bytes - HEADROOM_BYTES) // KEEP_BYTES_PARTS // CLOSING_BYTES
        least = min(self.partition_entries, PARTITION_MIN_ENTRIES)
        return min(self.partition_entries, fitting) if fitting >= least else 0

    @property
    def closes_at_bytes(self) -> int | None:
        """How large a part of the log is closed even if its entries are fewer; None if it may be of any size.

        Without sums nothing is lost by it if entries are so large that they go before enough of them are there.
        """
        bound = self.closed_max_bytes
        return max(1, bound // LARGE_PARTS) if bound is not None and self.leaves_sums else None

    @property
    def closes_at_age_s(self) -> float:
        """How old the oldest entry that is not closed may become, if there are enough for a partition."""
        kept_s = [keep_s for keep_s in (self.keep_s, *(keep_s for _, keep_s in self.keep_for)) if keep_s is not None]
        return min(PARTITION_MAX_AGE_S, *(keep_s / KEEP_PARTS for keep_s in kept_s), PARTITION_MAX_AGE_S)

    @property
    def leaves_sums(self) -> bool:
        """Whether sums are left of what is kept no longer."""
        return self.keep_rollups_s is not None and self.closes_at_entries > 0

    @property
    def needs_partitions(self) -> bool:
        """Whether anything is to be done that is done with closed partitions alone."""
        return self.keep_rollups_s is not None or bool(self.keep_for)

    @property
    def keep_for_in_vain(self) -> Sequence[str]:
        """The patterns of `keep_for` whose devices are kept for no shorter a time than the log, or its sums if any."""
        keep_s = self.keep_s
        if keep_s is not None and self.leaves_sums:
            keep_s = self.keep_rollups_s
        return [] if keep_s is None else [text for text, for_s in self.keep_for if for_s >= keep_s]

    @property
    def aged_entries(self) -> int:
        """How many entries are closed for their age, at least."""
        return AGED_SUMMED_ENTRIES if self.needs_partitions else AGED_PARTITION_ENTRIES

    def check(self) -> None:
        """Check that the entries that must stay have room, and that settings do not contradict one another.

        Raises:
            SettingUnusable: `keep_bytes` has no room for `keep_entries`, even if they are small; sums would be kept no
                longer than what they are of; or a pattern is none.
        """
        for text, _ in self.keep_for:
            try:
                Pattern(text)
            except ValidationFailed as error:
                raise SettingUnusable(f"--keep-for: {error.message} (in the environment TWINCAST_KEEP_FOR)") from None
        if self.keep_s is not None and self.keep_rollups_s is not None and self.keep_rollups_s <= self.keep_s:
            raise SettingUnusable(
                "--keep-rollups must be longer than --keep: these sums are what is left of entries that are kept no"
                " longer (in the environment TWINCAST_KEEP_ROLLUPS and TWINCAST_KEEP)"
            )
        needed_bytes = HEADROOM_BYTES + ENTRY_MIN_BYTES * self.keep_entries
        if self.keep_bytes is None or self.keep_bytes >= needed_bytes:
            return
        fitting = (self.keep_bytes - HEADROOM_BYTES) // ENTRY_MIN_BYTES
        either = f", or --resume-max-entries {fitting} at most" if fitting > 0 else ""
        raise SettingUnusable(
            f"--keep-bytes {self.keep_bytes} has no room for the newest {self.keep_entries:,} entries, which are always"
            f" kept so that clients can resume: give it {_in_megabytes(needed_bytes)} or more{either}"
            " (in the environment TWINCAST_KEEP_BYTES and TWINCAST_RESUME_MAX_ENTRIES)"
        )

    def oldest_rollup_us(self, now_utc: str) -> int | None:
        """Return the time before which what is left of partitions is too old; None if it never is.

        What was left while the setting was another stays until there is one again.
        """
        if self.keep_rollups_s is None:
            return None
        return round((datetime.fromisoformat(now_utc).timestamp() - self.keep_rollups_s) * 1e6)

    def oldest_kept_utc(self, now_utc: str) -> datetime | None:
        """Return the time before which entries are too old; None if none ever is.

        Args:
            now_utc: the clock that entries are stamped by, ISO 8601.
        """
        if self.keep_s is None:
            return None
        try:
            return datetime.fromisoformat(now_utc) - timedelta(seconds=self.keep_s)
        except OverflowError:  # longer ago than there are dates
            return datetime.min.replace(tzinfo=UTC)


KEEP_ALL = Retention()


def _in_megabytes(size_bytes: int) -> str:
    return f"{-(-size_bytes // 1_000_000)}MB"
