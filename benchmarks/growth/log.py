"""What a log that grows costs: opened, appended to, read back, trimmed, folded into the checkpoint, and as a state."""

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median

import apsw
from msgspec import Raw

from benchmarks.growth.curves import Dimension, Measured
from twincast.core.batch import Batch
from twincast.core.model import DataUpdate
from twincast.journal.sqlite.file import CHECKPOINT_ENTRIES, SqliteFile
from twincast.journal.sqlite.journal import SqliteJournal
from twincast.journal.sqlite.trim import SLICE_ENTRIES

DEVICES = 10_000
APPENDED, READ_BACK = 100, 512
ROUNDS = 9

_FILL = """
with recursive n(seq) as (select 1 union all select seq + 1 from n where seq < ?1)
insert into log select seq, 'data_update', 'hall/' || (seq % ?2), '{"celsius":21.5,"n":' || seq || '}', null,
    '2026-11-26T12:00:00.000000+00:00', 'websocket', null from n
"""
_CHECKPOINT = """
insert into checkpoint select device_id, value, timestamp_utc, source, seq, null from log where seq > ?1 - ?2
"""
_SET_CHECKPOINT = "update meta set value = ? where name = 'checkpoint_seq'"


def fill(file: Path, entries: int) -> None:
    """Make a journal of so many readings of 10,000 devices by one SQL statement: not as a server makes it, but soon."""
    SqliteFile(str(file)).close()
    db = apsw.Connection(str(file))
    for pragma in ("journal_mode=off", "synchronous=off"):
        db.execute(f"pragma {pragma}")
    with db:
        db.execute(_FILL, (entries, DEVICES))
        db.execute(_CHECKPOINT, (entries, DEVICES))
        db.execute(_SET_CHECKPOINT, (str(entries),))
    db.close()


def _batch(first: int) -> Batch:
    batch = Batch()
    for n in range(first, first + APPENDED):
        value = Raw(b'{"celsius":21.5,"n":%d}' % n)
        entry = DataUpdate(f"hall/{n % DEVICES}", value, "2026-11-26T12:00:00.000000+00:00", "websocket")
        batch.add(entry, len(value), lambda *_: None)
    return batch


async def _cpu_ms(do: Callable[[int], Awaitable[object]]) -> float:
    """Return the processor time of something, all threads together: the median of some rounds."""
    costs_ms = []
    for number in range(ROUNDS):
        began_s = time.process_time()
        await do(number)
        costs_ms.append((time.process_time() - began_s) * 1e3)
    return median(costs_ms)


async def _of_server(file: Path, entries: int) -> dict[str, float]:
    async def open_(_: int) -> None:
        journal = await SqliteJournal.open(str(file))
        await journal.close()

    measured = {"open and close": await _cpu_ms(open_)}
    journal = await SqliteJournal.open(str(file))
    try:
        batches = [_batch(entries + number * APPENDED) for number in range(ROUNDS)]
        measured["append 100"] = await _cpu_ms(lambda number: journal.append(batches[number]))
        places = [entries * number // (ROUNDS + 1) for number in range(ROUNDS)]
        measured["read back 512"] = await _cpu_ms(lambda number: journal.read(places[number], READ_BACK))
        measured["state of 10,000 devices"] = await _cpu_ms(lambda _: journal.snapshot())
    finally:
        await journal.close()
    return measured


async def _of_slices(path: Path, entries: int) -> dict[str, float]:
    db = apsw.Connection(str(path))
    db.execute(_SET_CHECKPOINT, (str(max(0, entries - (ROUNDS + 1) * CHECKPOINT_ENTRIES)),))
    db.close()
    file = SqliteFile(str(path))
    try:

        async def checkpoint(_: int) -> None:
            file.checkpoint()

        async def trim(number: int) -> None:
            file.trim((number + 1) * SLICE_ENTRIES)

        measured = {}
        if entries > (ROUNDS + 1) * CHECKPOINT_ENTRIES:
            measured[f"checkpoint of {CHECKPOINT_ENTRIES:,}"] = await _cpu_ms(checkpoint)
            measured[f"trim of {SLICE_ENTRIES:,}"] = await _cpu_ms(trim)
        return measured
    finally:
        file.close()


def _of_log(entries: int, _seconds: float) -> Measured:
    async def measured(file: Path) -> Measured:
        return {**await _of_server(file, entries), **await _of_slices(file, entries)}

    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "journal.db"
        fill(file, entries)
        return asyncio.run(measured(file))


LOG = Dimension(
    "log",
    "entries of the log",
    "CPU ms",
    "an SQLite file that one SQL statement filled with readings of 10,000 devices; all threads and the system together",
    (10_000, 100_000, 1_000_000, 5_000_000),
    (10_000,),
    _of_log,
    long=(20_000_000, 50_000_000),
)
