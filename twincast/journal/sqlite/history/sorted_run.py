"""The entries of one device in one place, sorted by time: in a partition, in a slice, or in what no slice has yet.

Each method is one statement, whose one row is a JSON text that SQLite made: a thread asks for the interpreter's lock at
each row that comes to Python. Whoever calls says how much it looks at, so that it takes some milliseconds.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import apsw
import msgspec
from msgspec import Raw, Struct

from twincast.core.model import DataUpdate, Entry, Late, Source
from twincast.history.pointer import Pointer
from twincast.history.query import Place
from twincast.journal.sqlite.history.events import decode as decode_events
from twincast.journal.sqlite.history.layout import DELETION, LATE, READING
from twincast.journal.sqlite.history.parts import part_of
from twincast.journal.sqlite.history.times import iso

IS_READING = f"in ({READING}, {LATE})"
KNOWN_MAX = 1_000
"""Of so many devices, and their paths, an open partition knows what it was asked before: some hundred bytes each."""
SHORT_BYTES = 64
"""Readings with values up to so long come with their keys: to look each up afterwards takes longer."""


class Columns(NamedTuple):
    """SQL for what a run has, wherever it lies. There are few of these, so that statements are prepared once."""

    rows: str
    """What stands behind `from`."""
    where: str
    at: str
    seq: str
    stored: str
    kind: str
    value: str
    bytes: str
    """The size of the value."""
    has_all: str
    """Whether a row has all of its entry: a short reading, with times in our own form."""
    source: str
    """Of such a reading, the way by which it came, as JSON."""
    own_stored: str
    """Of such a reading, when it was stored, if `at` is when it was measured; else null."""
    event: str
    """An entry as JSON; see `events`."""
    seek: str
    """Behind `from json_each(:found) f cross join`: the entry at `f.value ->> 0`, of seq `f.value ->> 1`."""
    is_clustered: bool
    """Whether values lie in the order of the run, so that many in a row are read faster than by a seek for each."""
    rollups: str
    """The table of rollups."""
    rolled: str
    """Which of those are of the device and the path `:pointer`."""
    rolled_device: str
    """Which of them are of the device."""


class Key(Struct, array_like=True, gc=False):
    """An entry, as far as it takes to find its place on a page; short readings are whole."""

    time_us: int
    """That by which the page goes."""
    seq: int
    size_bytes: int
    at_us: int
    run: int
    """The number of its run."""
    source: Source | None = None
    """The way by which it came, of an entry that is whole."""
    kind: int = READING
    stored_us: int | None = None
    """When it was stored, if it was measured `at_us`."""
    value: Raw = Raw(b"")

    def entry(self, device: str, epoch: str) -> Entry:
        """Return the entry, which is whole."""
        assert self.source is not None
        if self.stored_us is None:
            return DataUpdate(device, self.value, iso(self.at_us), self.source, self.seq, epoch)
        stored, measured = iso(self.stored_us), iso(self.at_us)
        if self.kind == LATE:
            return Late(device, self.value, stored, self.source, measured, self.seq, epoch)
        return DataUpdate(device, self.value, stored, self.source, self.seq, epoch, measured)


class Look(NamedTuple):
    """Some entries in a row, by `at`, and which of them are wanted."""

    bindings: dict[str, int]
    """`at`, `seq`: the place behind which they begin. `until_us`: times up to it, or backwards before it, are not
    looked at. `limit`: how many are looked at. And those of `wanted`."""
    is_descending: bool
    by_stored: bool
    """Whether the keys have stored times."""
    wanted: str
    """SQL with `{time}`, `{kind}` and `{seq}`."""
    paths: Sequence[Pointer]
    """Of readings, only those are wanted whose values have one of these; all, if there are none."""


class Block(NamedTuple):
    """What a look has found."""

    looked_at: int
    keys: Sequence[Key]
    """Of those that are wanted."""


_decode_block = msgspec.json.Decoder(Block).decode


class SortedRun:
    """One device's entries in one place. Nothing is read until it is asked for."""

    def __init__(
        self,
        db: apsw.Connection,
        columns: Columns,
        bindings: dict[str, int],
        *,
        times_us: tuple[int, int],
        stored_us: tuple[int, int],
        is_whole: bool,
        has_measured: bool,
        texts: dict[str, str] | None = None,
        is_short: bool = False,
        members: "Sequence[SortedRun]" = (),
        widths: "dict[tuple[int, str], list[int] | None] | None" = None,
    ) -> None:
        """Say where the entries are.

        Args:
            db: the connection.
            columns: what stands where.
            bindings: of the conditions in `columns`.
            times_us: the first and last `at` that there may be.
            stored_us: the first and last stored time that there may be.
            is_whole: whether all entries of the place are asked for; only then its rollups are right.
            has_measured: whether stored times may be others than `at`.
            texts: more bindings.
            is_short: whether it is in no order, and so short that one statement may look at all of it.
            members: the runs of which this one has the rollups, if it has nothing else; their own are not used.
            widths: what `sums.widths` has found, by device and path, of a place that does not change; it is added to.
        """
        self.db = db
        self.columns = columns
        self.device = bindings["device"]
        self._bindings = {**bindings, **(texts or {})}
        self.times_us = times_us
        self.stored_us = stored_us
        self.is_whole = is_whole
        self.has_measured = has_measured
        self.is_short = is_short
        self.members = members
        self.widths = widths
        self.looked_at = 0
        """How many entries looks have seen."""

    def keys(self, look: Look, number: int) -> Block:
        """Look at some entries, and return the keys of those that are wanted, which have a number of the run.

        SQLite's `concat` takes half as long as so many `||`.
        """
        has = self.columns
        wanted = look.wanted.replace("{time}", has.stored if look.by_stored else has.at)
        wanted = wanted.replace("{kind}", has.kind).replace("{seq}", has.seq)
        if look.paths:
            has_path = " or ".join(f"{part_of(path, has.value)} is not null" for path in look.paths)
            wanted += f" and ({has.kind} not {IS_READING} or {has_path})"
        size = f"iif({has.kind} = {DELETION}, 0, {has.bytes})"
        time = has.stored if look.by_stored else has.at
        order = "desc" if look.is_descending else "asc"
        whole = f"',', {has.source}, ',', {has.kind}, ',', coalesce({has.own_stored}, 'null'), ',', {has.value}"
        head = f"'[', {time}, ',', {has.seq}, ',', {size}, ',', {has.at}, ',', :number"
        key = f"iif({has.has_all}, concat({head}, {whole}, ']'), concat({head}, ']'))"
        sql = f"""
select '[' || count(*) || ',[' || coalesce(group_concat(key, ','), '') || ']]' from (
    select iif({wanted}, {key}, null) as key
    from {has.rows} where {has.where} and {self._from(look)}
    order by {has.at} {order}, {has.seq} {order} limit :limit
)"""
        block = _decode_block(self.one(sql, {**look.bindings, "number": number}))
        self.looked_at += block.looked_at
        return block

    def nth(self, look: Look) -> Place:
        """Return the place of the last entry of a look, which looked at as many as it may."""
        has = self.columns
        order = "desc" if look.is_descending else "asc"
        sql = f"""
select {has.at} || ' ' || {has.seq} from {has.rows} where {has.where} and {self._from(look)}
order by {has.at} {order}, {has.seq} {order} limit 1 offset :limit - 1"""
        return Place(*map(int, self.one(sql, look.bindings).split()))

    def _from(self, look: Look) -> str:
        sign, border = ("<", ">=") if look.is_descending else (">", "<")
        at, seq = self.columns.at, self.columns.seq
        return f"{at} {border} :until_us and ({at}, {seq}) {sign} (:at, :seq)"

    def entries(self, keys: Sequence[Key], name: str, epoch: str, *, are_dense: bool) -> list[Entry]:
        """Return the entries of some keys, in any order, perhaps among others.

        Args:
            keys: the keys.
            name: the device's name as JSON.
            epoch: what the entries get, as JSON.
            are_dense: whether there are few others between them, so that all are read: a seek for each takes longer.
        """
        has = self.columns
        bindings: dict[str, Any] = {"name": name, "epoch": epoch}
        if are_dense and has.is_clustered:
            times = [key.at_us for key in keys]  # by stored times, the ends are anywhere
            bindings |= {"since_us": min(times), "until_us": max(times)}
            sql = f"select {has.event} as event from {has.rows}"
            sql += f" where {has.where} and {has.at} >= :since_us and {has.at} <= :until_us"
        else:
            bindings["found"] = msgspec.json.encode([(key.at_us, key.seq) for key in keys]).decode()
            sql = f"select {has.event} as event from json_each(:found) f cross join {has.seek}"
        return decode_events(
            self.one(f"select '[' || coalesce(group_concat(event, ','), '') || ']' from ({sql})", bindings)
        )

    def border(self, since_us: int, until_us: int, entries: int) -> int:
        """Return a time up to which there are about so many entries; `until_us`, if there are fewer."""
        has = self.columns
        sql = f"""
select coalesce((
    select {has.at} from {has.rows} where {has.where} and {has.at} >= :since_us and {has.at} < :until_us
    order by {has.at} limit 1 offset {entries}
), :until_us)"""
        border = int(self.one(sql, {"since_us": since_us, "until_us": until_us}))
        return min(border if border > since_us else since_us + 1, until_us)  # many may be of one time

    def narrowed(self, extent: tuple[int, int]) -> tuple[int, int] | None:
        """Return the range in which there are entries, within another one; None if there are none. Two seeks."""
        found = self.one(f"select {self.ends_of()}", {"since_us": extent[0], "until_us": extent[1]})
        first, last = found.split(",")
        return None if first == "null" else (int(first), int(last) + 1)

    def ends_of(self) -> str:
        """Return the SQL for the first and last `at` from `:since_us` up to `:until_us`, with a comma between."""
        has = self.columns
        within = f"{has.rows} where {has.where} and {has.at} >= :since_us and {has.at} < :until_us"
        seeks = (f"(select {has.at} from {within} order by {has.at} {order} limit 1)" for order in ("asc", "desc"))
        return " || ',' || ".join(f"coalesce({seek}, 'null')" for seek in seeks)

    def one(self, sql: str, bindings: dict[str, Any]) -> str:
        """Return the one value of the one row of a statement; its bindings and those of the run are there."""
        text = self.db.execute(sql, {**self._bindings, **bindings}).get
        return str(text)
