"""Takes the oldest part of the log off, a slice at a time, between commits; docs/journal.md has the reasons.

What goes is what is kept no longer, and what closed partitions have. Of those, whole ones go.
"""

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import NamedTuple

import apsw

from twincast.errors import JournalUnavailable
from twincast.journal.retention import WAL_MAX_BYTES, Retention
from twincast.journal.sqlite.failing import unavailable_if_failing
from twincast.journal.sqlite.history.catalog import CLOSED, Part, reaches_back_to
from twincast.journal.sqlite.history.files import OpenPartitions
from twincast.journal.sqlite.history.layout import oldest_stored_from
from twincast.journal.sqlite.history.times import time_us

SLICE_ENTRIES, SLICE_BYTES = 2_000, 1024 * 1024
"""What one slice takes at most, about a millisecond of the thread that commits; or twice what came since the last look,
so that trimming keeps up with any load."""
SLICE_MAX = 4
"""A slice is never larger than this many of them, however long ago the last look was: commits wait for it."""
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
    """How full a journal is, as of one look."""

    used_bytes: int
    """Pages in use, and the closed partitions."""
    free_bytes: int
    """Pages that are written anew before the file grows."""
    history_bytes: int
    """The closed partitions among them."""
    oldest_since: int
    """The position from which on the log has everything, in partitions or in the journal itself."""
    oldest_at_utc: str | None
    hot_since: int
    """The position before the oldest entry that is in the journal itself."""
    until: int | None
    """Up to where the next slice goes off the journal itself; None if nothing is due."""
    dropped: Sequence[Part]
    """The partitions that are kept no longer."""
    forgotten: Sequence[Part]
    """What is left of partitions, and is kept no longer either."""
    is_short: bool
    """Whether the bound in bytes cannot be kept, because what must stay takes more."""

    @property
    def is_due(self) -> bool:
        """Whether anything is to go."""
        return self.until is not None or bool(self.dropped) or bool(self.forgotten)


class LogTrim:
    """Decides which part of an open journal's log may go, and deletes it. Every method runs in the journal's thread."""

    def __init__(self, db: apsw.Connection, retention: Retention, path: str, *, vfs: str | None = None) -> None:
        """Measure a journal that is open.

        Args:
            db: the connection.
            retention: what is kept.
            path: the journal's file.
            vfs: another SQLite file layer than the system's.

        Raises:
            apsw.Error: the disk does not give it.
        """
        self._db = db
        self._open = OpenPartitions(path, vfs=vfs)
        self._page_bytes = int(db.pragma("page_size"))
        self._retention = retention
        self._newest_seq = self._appended_bytes = 0  # at the last look
        self.lent_pages = 0
        """How many pages are free, but taken for a while by what is written over them."""
        self._slice = SLICE_ENTRIES, SLICE_BYTES
        self._takes_unclosed = False
        self._audit_seen = 0  # up to here the audit trail has nothing left but what was done to keys
        if retention.keep_bytes is not None:
            db.pragma("journal_size_limit", WAL_MAX_BYTES)

    def look(
        self,
        newest_seq: int,
        appended_bytes: int,
        now_utc: str,
        parts: Sequence[Part] = (),
        summaries: Sequence[Part] = (),
    ) -> Look:
        """Return how full the journal is, and what goes next.

        Args:
            newest_seq: the newest entry.
            appended_bytes: how much was appended since the file was opened.
            now_utc: the clock that entries are stamped by.
            parts: the closed partitions, oldest first.
            summaries: what is left of older ones.
        """
        self._fit_slice(newest_seq, appended_bytes)
        free_pages = int(self._db.pragma("freelist_count")) + self.lent_pages
        history_bytes = sum(part.bytes for part in (*parts, *summaries))
        used_bytes = (int(self._db.pragma("page_count")) - free_pages) * self._page_bytes + history_bytes
        hot_since, hot_at_utc = self._oldest(newest_seq)
        kept_from = newest_seq - max(1, self._retention.keep_entries)  # the newest says where the log goes on
        over_bytes = _over(used_bytes, self._retention.closed_max_bytes)
        dropped = self._dropped(parts, kept_from, over_bytes, now_utc)
        over_bytes -= sum(part.bytes for part in dropped)
        forgotten = self._forgotten(summaries, 0 if dropped else over_bytes, now_utc)
        left_bytes = used_bytes - sum(part.bytes for part in (*dropped, *forgotten))
        left = parts[len(dropped) :]
        oldest_since = reaches_back_to(parts, hot_since)
        oldest_at_utc = hot_at_utc if oldest_since == hot_since else _stored_at(parts, oldest_since + 1)
        oldest = next((part for part in left if part.last_seq > oldest_since), None)  # others have holes
        if oldest and (aged := self._aged_of(oldest, kept_from, now_utc)) is not None and aged[0] > oldest_since:
            oldest_since, oldest_at_utc = aged
        until = None
        if kept_from > hot_since:
            closed = left or [part for part in summaries if part.last_seq > hot_since]
            # What was never closed goes last: only once no partition is left to go, and no sum.
            over_bytes = 0 if dropped else self._over_unclosed(left_bytes)
            until = self._next_slice(hot_since, kept_from, over_bytes, now_utc, closed)
        return Look(
            used_bytes,
            free_pages * self._page_bytes,
            history_bytes,
            oldest_since,
            oldest_at_utc,
            hot_since,
            until,
            dropped,
            forgotten,
            _over(left_bytes, self._retention.log_max_bytes) > SLACK_BYTES and kept_from <= oldest_since,
        )

    def _fit_slice(self, newest_seq: int, appended_bytes: int) -> None:
        """Let the next slice be as large as it takes to keep up with what came since the last look."""
        self._slice = (
            _between(SLICE_ENTRIES, 2 * (newest_seq - self._newest_seq) if self._newest_seq else 0),
            _between(SLICE_BYTES, 2 * (appended_bytes - self._appended_bytes)),
        )
        self._newest_seq, self._appended_bytes = newest_seq, appended_bytes

    def take(self, until: int) -> None:
        """Take off the journal itself what is in it up to a position. Within a transaction."""
        self._db.execute("delete from log where seq <= ?", (until,))

    def take_audit(self, until: int) -> int:
        """Take off what the audit trail says of entries up to a position, which the log does not have any more.

        Within a transaction; if that succeeds, `took` is to be told what this returns.
        """
        behind = self._db.execute(_AUDIT_END, (self._audit_seen, until)).get
        last = int(self._db.execute(_AUDIT_NEWEST).get) if behind is None else int(behind) - 1
        self._db.execute(_TRIM_AUDIT, (self._audit_seen, last))
        return last

    def took(self, audit_seen: int) -> None:
        """Count a slice as deleted."""
        self._audit_seen = audit_seen

    def hot_since(self, newest_seq: int) -> int:
        """Return the position before the oldest entry that is in the journal itself."""
        return self._oldest(newest_seq)[0]

    def _oldest(self, newest_seq: int) -> tuple[int, str | None]:
        row = self._db.execute("select seq - 1, timestamp_utc from log order by seq limit 1").fetchone()
        return (int(row[0]), str(row[1])) if row else (newest_seq, None)

    def _dropped(self, parts: Sequence[Part], kept_from: int, over_bytes: int, now_utc: str) -> Sequence[Part]:
        """Return the partitions that go: too old, with all before them, or the oldest of too much."""
        oldest_kept_utc = self._retention.oldest_kept_utc(now_utc)
        oldest_kept_us = None if oldest_kept_utc is None else time_us(oldest_kept_utc.isoformat())
        count = 0
        for number, part in enumerate(parts, 1):
            if part.last_seq > kept_from:
                break
            if oldest_kept_us is not None and part.stored_max_us < oldest_kept_us:
                count = number  # also those before, which a clock that was ahead has stamped
            elif over_bytes > sum(each.bytes for each in parts[: number - 1]):
                count = number
        return parts[:count]

    def _over_unclosed(self, used_bytes: int) -> int:
        """Return how much of what was never closed is too much.

        Once any is, as much goes at once as gives room for closing the next partition undisturbed.
        """
        bound = self._retention.closed_max_bytes if self._takes_unclosed else self._retention.log_max_bytes
        over_bytes = _over(used_bytes, bound)
        self._takes_unclosed = over_bytes > 0
        return over_bytes

    def _forgotten(self, summaries: Sequence[Part], over_bytes: int, now_utc: str) -> Sequence[Part]:
        """Return what is left of partitions that goes: too old, or the oldest where nothing else is left to go."""
        oldest_kept_us = self._retention.oldest_rollup_us(now_utc)
        found: list[Part] = []
        for part in summaries:
            is_old = oldest_kept_us is not None and part.stored_max_us < oldest_kept_us
            if not is_old and over_bytes <= sum(each.bytes for each in found):
                break
            found.append(part)
        return found

    def _aged_of(self, part: Part, kept_from: int, now_utc: str) -> tuple[int, str] | None:
        """Return up to where the oldest partition is too old, and the time of what follows; None if none of it is.

        Its file goes as a whole, later; but nobody reads this part of it any more.
        """
        oldest_kept_utc = self._retention.oldest_kept_utc(now_utc)
        if oldest_kept_utc is None or part.kind != CLOSED:
            return None
        oldest_kept_us = time_us(oldest_kept_utc.isoformat())
        if part.stored_min_us >= oldest_kept_us:
            return None
        with suppress(JournalUnavailable), unavailable_if_failing():
            db = self._open.get(part)
            seq = min(oldest_stored_from(db, oldest_kept_us, part.last_seq), kept_from + 1)
            at_utc = db.execute("select timestamp_utc from log where seq = ?", (seq,)).get
            return None if at_utc is None else (seq - 1, str(at_utc))
        return None

    def keep_only(self, parts: Sequence[Part]) -> None:
        """Let go of the files of partitions that are no longer part of the log."""
        self._open.keep_only(parts)

    def close(self) -> None:
        """Release the files."""
        self._open.close()

    def _next_slice(
        self, hot_since: int, kept_from: int, over_bytes: int, now_utc: str, parts: Sequence[Part]
    ) -> int | None:
        """Return up to where a slice goes: what partitions have; or, if there are none, what is kept no longer.

        Where sums are to be left of it, what is too old stays until it is closed.
        """
        if parts:
            closed = min(parts[-1].last_seq, kept_from)
            return self._end_of_slice(closed, over_bytes=None) if closed > hot_since else None
        ends = []
        if over_bytes > 0:
            ends.append(self._end_of_slice(kept_from, over_bytes + SLACK_BYTES))
        oldest_kept_utc = self._retention.oldest_kept_utc(now_utc)
        if oldest_kept_utc is not None and not self._retention.leaves_sums:
            aged = self._newest_before(oldest_kept_utc, hot_since, kept_from)
            if aged > hot_since:
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


def _over(used_bytes: int, bound: int | None) -> int:
    return 0 if bound is None else used_bytes - bound


def _stored_at(parts: Sequence[Part], first_seq: int) -> str:
    """Return when the first entry of the partition was stored that begins at a position."""
    return next(part.oldest_at_utc for part in parts if part.first_seq == first_seq)


def _between(usual: int, needed: int) -> int:
    return min(max(usual, needed), SLICE_MAX * usual)


def _time_of(text: str) -> datetime:
    """Return when an entry was stored; what is no time, in a log that somebody wrote into, counts as too new."""
    try:
        time_utc = datetime.fromisoformat(text)
    except ValueError:
        return _NEVER
    return time_utc if time_utc.tzinfo else time_utc.replace(tzinfo=UTC)
