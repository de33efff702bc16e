"""How much of the log is kept, and when there is more than that; pure."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from twincast.errors import SettingUnusable

WAL_MAX_BYTES = 16 * 1024 * 1024
"""The -wal is cut back to this, once all of it is in the file: SQLite by itself keeps it at its largest size."""
HEADROOM_BYTES = WAL_MAX_BYTES + 8 * 1024 * 1024
"""This much of `keep_bytes` stays free: for the -wal, and for what is appended before the next look."""
ENTRY_MIN_BYTES = 128
"""The least that an entry takes of the file, for planning: 103 were measured for a small reading."""


class Retention(NamedTuple):
    """How much of the log is kept. If both bounds are set, the smaller one decides; without any, everything is kept."""

    keep_s: float | None = None
    """How old an entry may be."""
    keep_bytes: int | None = None
    """How much of the disk the journal may take, file and -wal."""
    keep_entries: int = 0
    """How many of the newest entries always stay, whatever the two bounds say: clients resume from them."""

    @property
    def is_bounded(self) -> bool:
        """Whether any entry is ever trimmed."""
        return self.keep_s is not None or self.keep_bytes is not None

    @property
    def log_max_bytes(self) -> int | None:
        """How much of the file may be in use."""
        return None if self.keep_bytes is None else self.keep_bytes - HEADROOM_BYTES

    def check(self) -> None:
        """Check that the entries that must stay have room.

        Raises:
            SettingUnusable: `keep_bytes` has no room for `keep_entries`, even if they are small.
        """
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
