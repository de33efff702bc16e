"""What must hold in the end: the log that all servers hold is the judge of what publishers and watchers were told."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import apsw
import msgspec
import requests
from msgspec import Raw, Struct

from tests.cluster_soak.ledger import Ack, Ledger
from tests.cluster_soak.machines import Server
from tests.cluster_soak.publishers import BATCH
from twincast.core.model import DataUpdate, Source

PAGE = 10_000
SHOWN = 5
OF_THE_LOG = ("log", "receipt", "fence")
"""The tables of a copy that are of the log alone."""


class _Page(Struct):
    events: list[Raw]
    seq: int
    resumed: bool
    more: bool


class _Event(Struct):
    type: str
    seq: int
    timestamp_utc: str
    source: Source
    device_id: str
    value: Raw
    epoch: str


class _Value(Struct):
    by: str
    n: int
    i: int


class NotTold(Exception):
    """A server does not tell its log: it was well a moment before, and has found out since that it is not."""


def history_of(server: Server, epoch: str) -> list[bytes]:
    """Return every event of the log as a server tells it, as the bytes that it sends.

    Raises:
        NotTold: it does not tell it.
    """
    found: list[bytes] = []
    while True:
        query = {"since": f"{epoch}:{len(found)}", "limit": str(PAGE)}
        answer = requests.get(f"{server.url}/api/events", params=query, timeout=60)
        page = msgspec.json.decode(answer.content, type=_Page) if answer.ok else None
        if page is None or not page.resumed:
            raise NotTold(f"{server.name} does not tell its log from {query['since']} on: {answer.text[:200]}")
        found += map(bytes, page.events)
        if not page.more:
            return found


def tables_of(copy: Path) -> dict[str, Any]:
    """Return what the copy of a server that has ended holds of the log, and how far in the stream it is."""
    with closing(apsw.Connection(str(copy), flags=apsw.SQLITE_OPEN_READWRITE)) as db:
        tables = {name: db.execute(f"select * from {name} order by 1").fetchall() for name in OF_THE_LOG}
        return {**tables, "place": db.execute("select value from meta where name = 'stream_place'").fetchall()}


def differences(what: str, held: Mapping[str, Sequence[Any]]) -> list[str]:
    """Return in what servers differ that must hold the same."""
    (first, ours), *others = held.items()
    wrong = []
    for name, theirs in others:
        if ours == theirs:
            continue
        at = next(
            (i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs))
        )
        pair = [str(each[at])[:200] if at < len(each) else "nothing" for each in (ours, theirs)]
        wrong.append(
            f"{first} and {name} hold another {what}: {len(ours)} and {len(theirs)} of it, different from {at} on:"
            f" {pair[0]} and {pair[1]}"
        )
    return wrong


class Judge:
    """Judges by one log."""

    def __init__(self, history: Sequence[bytes]) -> None:
        decode = msgspec.json.Decoder(_Event).decode
        events = [decode(text) for text in history]
        self.log = [
            DataUpdate(event.device_id, event.value, event.timestamp_utc, event.source, event.seq, event.epoch)
            for event in events
        ]
        self._values = [msgspec.json.decode(event.value, type=_Value) for event in events]

    def wrong(self, ledger: Ledger, *, is_replaced: bool = False) -> list[str]:
        """Return what is wrong with the log, and with what publishers were told.

        Args:
            ledger: what they were told.
            is_replaced: whether the log is another one since, by right: what was told before counts no more.
        """
        return [
            *self._order(),
            *self._stored_twice(ledger),
            *_first_of("acknowledged, and not so in the log", self._lies(ledger, is_replaced)),
            *_first_of("a batch in parts", self._parts()),
        ]

    def _order(self) -> Iterable[str]:
        if [entry.seq for entry in self.log] != list(range(1, len(self.log) + 1)):
            yield "the positions are not 1, 2, 3, … without gaps"
        if any(after.timestamp_utc < before.timestamp_utc for before, after in pairwise(self.log)):
            yield "time goes back"
        newest: dict[str, int] = {}
        for value in self._values:
            if value.n < newest.get(value.by, 0):
                yield f"{value.by}: update {value.n} stands behind {newest[value.by]}"
                return
            newest[value.by] = value.n

    def _stored_twice(self, ledger: Ledger) -> Iterable[str]:
        seen: dict[tuple[str, int, int], int] = {}
        twice = []
        for seq, value in enumerate(self._values, 1):
            key = (value.by, value.n, value.i)
            if key in seen:
                twice.append(f"{value.by} {value.n}.{value.i} at {seen[key]} and {seq}")
            if value.n >= ledger.sent.get(value.by, 0):
                yield f"{value.by} {value.n} was never sent"
            seen[key] = seq
        yield from _first_of("stored twice", twice)

    def _lies(self, ledger: Ledger, is_replaced: bool) -> Iterable[str]:
        epoch = self.log[-1].epoch if self.log else ""
        stands = {(value.by, value.n, value.i): seq for seq, value in enumerate(self._values, 1)}
        for ack in ledger.acks:
            if is_replaced and ack.epoch != epoch:
                continue
            if ack.is_at_least:
                seq = stands.get((ack.by, ack.n, 0))
                if seq is None or seq > ack.first:
                    yield f"{ack}, where it stands at {seq}"
            elif found := self._told_otherwise(ack):
                yield found

    def _told_otherwise(self, ack: Ack) -> str | None:
        values = self._values[ack.first - 1 : ack.last]
        expected = [(ack.by, ack.n, i) for i in range(ack.last - ack.first + 1)]
        if [(value.by, value.n, value.i) for value in values] == expected:
            return None
        return f"{ack}, where the log has {values[:BATCH]}"

    def _parts(self) -> Iterable[str]:
        batches: dict[tuple[str, int], list[int]] = {}
        for seq, value in enumerate(self._values, 1):
            if value.by.startswith("batch"):
                batches.setdefault((value.by, value.n), []).append(seq)
        for batch, seqs in batches.items():
            if seqs != list(range(seqs[0], seqs[0] + BATCH)):
                yield f"{batch} at {seqs}"


def _first_of(what: str, found: Iterable[str]) -> Iterable[str]:
    all_found = list(found)
    if all_found:
        yield f"{what}: {len(all_found)}; the first: {'; '.join(all_found[:SHOWN])}"
