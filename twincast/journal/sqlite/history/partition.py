"""Closed partitions that are read: their devices' runs, and what they know of themselves."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import apsw

from twincast.history.times import MIN_US
from twincast.journal.sqlite.failing import unavailable_if_failing
from twincast.journal.sqlite.history.buckets import EDGE_TABLE
from twincast.journal.sqlite.history.catalog import Part
from twincast.journal.sqlite.history.events import claim_of, event_of
from twincast.journal.sqlite.history.files import OPEN_MAX, digest, path_of
from twincast.journal.sqlite.history.layout import BELIEVED_AHEAD_US, IS_MARK, LATE, READING, SOURCES, open_partition
from twincast.journal.sqlite.history.paced import run
from twincast.journal.sqlite.history.parts import add_part_of
from twincast.journal.sqlite.history.sorted_run import KNOWN_MAX, SHORT_BYTES, Columns, SortedRun
from twincast.journal.sqlite.history.turns import Steps

_ROLLED_DEVICE = "r.device = :device"
_HAS_ALL = f"""
(entry.kind = {READING} or entry.kind = {LATE} and entry.stored_us is not null)
and octet_length(entry.value) <= {SHORT_BYTES} and entry.source in ({", ".join(map(str, SOURCES))})
and entry.at_us >= {MIN_US + BELIEVED_AHEAD_US}"""
_WITHIN = " and entry.seq > :since and entry.seq <= :until"


class Partition:
    """An open partition. Only one thread may use it. It is closed when nobody holds it any more."""

    def __init__(self, part: Part, db: apsw.Connection) -> None:
        """Take an open file, and read what is the same for all queries."""
        self.part = part
        self.db = db
        add_part_of(db)
        run(db, EDGE_TABLE)
        about: dict[str, str] = dict(db.execute("select name, value from about"))
        self.knows_all_before = about.get("state_is_whole") == "1"
        """Whether `state` has the twins of all devices from before this partition."""
        self.has_measured = about.get("has_measured", "1") == "1"
        """Whether there are measured times in it."""
        sources: Any = db.execute("select id, json_quote(name) from source").fetchall()
        names = " ".join(f"when {number} then '{name}'" for number, name in sources)
        self._source = f"case entry.source {names} end"
        has_claimed, has_stamped, self.has_unordered = (
            bool(db.execute(f"select exists (select 1 from {table})").get)
            for table in ("claimed", "stamped", "unordered")
        )
        self.stored_text, self.measured_text = _times("entry", has_claimed=has_claimed, has_stamped=has_stamped)
        self.state_texts = _times("state", has_claimed=has_claimed, has_stamped=has_stamped)
        self._has_all = _HAS_ALL
        for table, is_there in ("claimed", has_claimed), ("stamped", has_stamped):
            self._has_all += f" and entry.seq not in (select seq from {table})" if is_there else ""
        self._numbers: dict[str, int | None] = {}
        self._widths: dict[tuple[int, str], list[int] | None] = {}
        self._whole, self._part = self._columns(""), self._columns(_WITHIN)
        has_index = db.execute("select exists (select 1 from sqlite_schema where name = 'marks')").get
        self._marks = self._columns(
            f" and entry.kind {IS_MARK}{_WITHIN}", "entry indexed by marks" if has_index else "entry"
        )

    def device(self, name: str) -> int | None:
        """Return the number of a device here; None if it has none."""
        if name not in self._numbers:
            if len(self._numbers) >= KNOWN_MAX:
                self._numbers.clear()
            found = self.db.execute("select id from device where name = ?", (name,)).get
            self._numbers[name] = None if found is None else int(found)
        return self._numbers[name]

    def run(self, device: int, until: int, since: int = 0, *, only_marks: bool = False) -> SortedRun:
        """Return the entries of a device behind a position, and up to another one; or only commands and deletions."""
        part = self.part
        is_whole = until >= part.last_seq and since < part.first_seq
        return SortedRun(
            self.db,
            self._marks if only_marks else self._whole if is_whole else self._part,
            {"device": device, "since": since, "until": until},
            times_us=(part.min_us, part.max_us),
            stored_us=(part.stored_min_us, part.stored_max_us),
            is_whole=is_whole and not only_marks,
            has_measured=self.has_measured,
            widths=self._widths,
        )

    def _columns(self, condition: str, table: str = "entry") -> Columns:
        of_path = f"{_ROLLED_DEVICE} and r.path in (select id from path where pointer = :pointer)"
        return Columns(
            rows=table,
            where=f"entry.device = :device{condition}",
            at="entry.at_us",
            seq="entry.seq",
            stored="coalesce(entry.stored_us, entry.at_us)",
            kind="entry.kind",
            value="entry.value",
            bytes="octet_length(entry.value)",
            has_all=self._has_all,
            source=self._source,
            own_stored="entry.stored_us",
            event=self._event(),
            seek="entry on entry.device = :device and entry.at_us = f.value ->> 0 and entry.seq = f.value ->> 1",
            is_clustered=True,
            rollups="rollup",
            rolled=of_path,
            rolled_device=_ROLLED_DEVICE,
        )

    def _event(self) -> str:
        return event_of(
            *("entry.kind", "entry.seq", "entry.value", self.stored_text, self._source),
            command="(select json_quote(name) from command where command.seq = entry.seq)",
            claim=claim_of(f"nullif({self.measured_text}, 'null')", is_off="entry.stored_us is null"),
        )


class Partitions:
    """Those that were read last stay open, about 100 KiB each. Only one thread may use them."""

    def __init__(self, journal: str, *, vfs: str | None = None) -> None:
        """Open none yet.

        Args:
            journal: the file of the journal beside whose folder they are.
            vfs: another SQLite file layer than the system's.
        """
        self._journal = journal
        self._vfs = vfs
        self._open: OrderedDict[tuple[str, str], Partition] = OrderedDict()
        self._last: Part | None = None

    def get(self, part: Part) -> Partition:
        """Return a partition, open.

        Raises:
            JournalUnavailable: it cannot be read.
        """
        key, self._last = (part.file, part.sha256), part
        partition = self._open.pop(key, None)
        if partition is None:
            path = path_of(self._journal, part)
            with unavailable_if_failing(path):
                partition = Partition(part, open_partition(path, vfs=self._vfs))
            while len(self._open) >= OPEN_MAX:
                self._open.popitem(last=False)  # and not closed: a query may be at work on it
        self._open[key] = partition
        return partition

    def keep_only(self, parts: Iterable[Part]) -> None:
        """Let go of those that are no longer part of the log."""
        for key in self._open.keys() - {(part.file, part.sha256) for part in parts}:
            del self._open[key]

    def damaged(self) -> Steps[str | None]:
        """Find a file that is not what was written, among those that were read last; return its path, and let it go.

        It reads whole files, a step each: to be asked once reading has failed.
        """
        last = [] if self._last is None else [self._last]
        for part in [*last, *(each.part for each in reversed(self._open.values()))]:
            yield
            path = path_of(self._journal, part)
            try:
                if digest(path) == part.sha256:
                    continue
            except FileNotFoundError:
                continue  # one that is gone is said elsewhere, and no longer asked
            except OSError:
                pass
            self._open.pop((part.file, part.sha256), None)
            return path
        return None

    def close(self) -> None:
        """Let go of all."""
        self._open.clear()


def _times(table: str, *, has_claimed: bool, has_stamped: bool) -> tuple[str, str]:
    """Return the SQL for the texts of the stored and of the measured time of a row, byte for byte, as JSON."""
    at, stored = f"{table}.at_us", f"{table}.stored_us"
    stored_text = _iso(f"coalesce({stored}, {at})")
    measured_text = f"iif({stored} is null, 'null', {_iso(at)})"
    if has_stamped:
        found = f"select json_quote(timestamp_utc) from stamped where stamped.seq = {table}.seq"
        stored_text = f"coalesce(({found}), {stored_text})"
    if has_claimed:
        found = f"select json_quote(measured_at_utc) from claimed where claimed.seq = {table}.seq"
        measured_text = f"coalesce(({found}), {measured_text})"
    return stored_text, measured_text


def _iso(us: str) -> str:
    """Return the SQL for a time as JSON, as `layout.iso_of` has it; `strftime` and `printf` take twice as long."""
    micros = f"(({us}) % 1000000 + 1000000) % 1000000"
    seconds = f"(({us}) - {micros}) / 1000000"
    second = f"replace(datetime({seconds}, 'unixepoch'), ' ', 'T')"
    return f"""'"' || {second} || '.' || substr(1000000 + {micros}, 2) || '+00:00"'"""
