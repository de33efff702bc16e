"""Takes the oldest part of the log off, a slice at a time, between commits; docs/journal.md has the reasons."""

from datetime import UTC, datetime
from typing import NamedTuple

import apsw

from twincast.journal.retention import WAL_MAX_BYTES, Retention

SLICE_ENTRIES, SLICE_BYTES = 2_000, 1024 * 1024
"""What one slice takes at most, about 2 ms of the thread that commits; or twice what came since the last look, so that
trimming keeps up with any load."""
SLACK_BYTES = 1024 * 1024
"""How far below its bound the file is brought, so that not every look finds a little to take."""
ROW_BYTES = 80
"""What a row has beside its name and value: its kind, its time, its source, its place in the page."""

_NEVER = datetime.max.replace(tzinfo=UTC)

# octet_length takes a value's length from its row, where length() would read all of its pages.
_END_OF_SLICE = """
select coalesce(min(seq) filter (where total >= ?3), max(seq)) from (
    select seq, sum(octet_length(value) + octet_length(device_id) + ?4) over (order by seq) as total
    from log where seq <= ?1 order by seq limit ?2
)
"""

# Records of commands and deletions stand in the order of their entries; those of the keys, between them, have no seq.
_AUDIT_END = "select id from audit where id > ? and seq > ? order by id limit 1"
_AUDIT_NEWEST = "select coalesce(max(id), 0) from audit"
_TRIM_AUDIT = "delete from audit where id > ? and id <= ? and seq is not null"


class Look(NamedTuple):
    """How full a journal's file is, as of one look."""

    used_bytes: int
    """Pages in use."""
    free_bytes: int
    """Pages that are written anew before the file grows."""
    oldest_since: int
    oldest_at_utc: str | None
    until: int | None
    """Up to where the next slice goes; None if nothing is due."""
    is_short: bool
    """Whether the bound in bytes cannot be kept, because what must stay takes more."""


class LogTrim:
    """Decides which part of an open journal's log may go, and deletes it. Every method runs in the journal's thread."""

    def __init__(self, db: apsw.Connection, retention: Retention) -> None:
        """Measure a journal that is open.

        Raises:
            apsw.Error: the disk does not give it.
        """
        self._db = db
        self._page_bytes = int(db.pragma("page_size"))
        self._retention = retention
        self._newest_seq = self._appended_bytes = 0  # at the last look
        self._slice = SLICE_ENTRIES, SLICE_BYTES
        self._audit_seen = 0  # up to here the audit trail has nothing left but what was done to keys
        if retention.keep_bytes is not None:
            db.pragma("journal_size_limit", WAL_MAX_BYTES)

    def look(self, newest_seq: int, appended_bytes: int, now_utc: str) -> Look:
        """Return how full the file is, and up to where the next slice goes.

        Args:
            newest_seq: the newest entry.
            appended_bytes: how much was appended since the file was opened.
            now_utc: the clock that entries are stamped by.
        """
        self._slice = (
            max(SLICE_ENTRIES, 2 * (newest_seq - self._newest_seq) if self._newest_seq else 0),
            max(SLICE_BYTES, 2 * (appended_bytes - self._appended_bytes)),
        )
        self._newest_seq, self._appended_bytes = newest_seq, appended_bytes
        free_pages = int(self._db.pragma("freelist_count"))
        used_bytes = (int(self._db.pragma("page_count")) - free_pages) * self._page_bytes
        oldest_since, oldest_at_utc = self._oldest()
        kept_from = newest_seq - max(1, self._retention.keep_entries)  # the newest says where the log goes on
        may_go = kept_from > oldest_since
        over_bytes = 0 if self._retention.log_max_bytes is None else used_bytes - self._retention.log_max_bytes
        return Look(
            used_bytes,
            free_pages * self._page_bytes,
            oldest_since,
            oldest_at_utc,
            self._next_slice(oldest_since, kept_from, over_bytes, now_utc) if may_go else None,
            over_bytes > SLACK_BYTES and not may_go,
        )

    def take(self, until: int) -> int:
        """Take off the log up to a position, and what the audit trail says of these entries.

        Within a transaction; if that succeeds, `took` is to be told what this returns.
        """
        self._db.execute("delete from log where seq <= ?", (until,))
        behind = self._db.execute(_AUDIT_END, (self._audit_seen, until)).get
        last = int(self._db.execute(_AUDIT_NEWEST).get) if behind is None else int(behind) - 1
        self._db.execute(_TRIM_AUDIT, (self._audit_seen, last))
        return last

    def took(self, audit_seen: int) -> None:
        """Count a slice as deleted."""
        self._audit_seen = audit_seen

    def _oldest(self) -> tuple[int, str | None]:
        row = self._db.execute("select seq - 1, timestamp_utc from log order by seq limit 1").fetchone()
        return (int(row[0]), str(row[1])) if row else (0, None)

    def _next_slice(self, oldest_since: int, kept_from: int, over_bytes: int, now_utc: str) -> int | None:
        ends = []
        if over_bytes > 0:
            ends.append(self._end_of_slice(kept_from, over_bytes + SLACK_BYTES))
        oldest_kept_utc = self._retention.oldest_kept_utc(now_utc)
        if oldest_kept_utc is not None:
            aged = self._newest_before(oldest_kept_utc, oldest_since, kept_from)
            if aged > oldest_since:
                ends.append(self._end_of_slice(aged, over_bytes=None))
        return max(ends, default=None)

    def _end_of_slice(self, limit: int, over_bytes: int | None) -> int:
        entries, slice_bytes = self._slice
        max_bytes = slice_bytes if over_bytes is None else min(slice_bytes, over_bytes)
        return int(self._db.execute(_END_OF_SLICE, (limit, entries, max_bytes, ROW_BYTES)).get)

    def _newest_before(self, time_utc: datetime, oldest_since: int, limit: int) -> int:
        """Return the newest position up to `limit` whose entry is older than that; `oldest_since` if none is.

        By halving, as if times only grew: where the clock was set back, what was stamped too late goes with what came
        after it.
        """
        low, high = oldest_since, limit
        while low < high:
            middle = (low + high + 1) // 2
            if _time_of(str(self._db.execute("select timestamp_utc from log where seq = ?", (middle,)).get)) < time_utc:
                low = middle
            else:
                high = middle - 1
        return low


def _time_of(text: str) -> datetime:
    """Return when an entry was stored; what is no time, in a log that somebody wrote into, counts as too new."""
    try:
        time_utc = datetime.fromisoformat(text)
    except ValueError:
        return _NEVER
    return time_utc if time_utc.tzinfo else time_utc.replace(tzinfo=UTC)
