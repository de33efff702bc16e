"""A process that appends, closes, trims and drops until it is killed: `python -m tests.journal.sqlite.history.writer`.

It prints the position of each append that returned.
"""

import asyncio
import os
import sys
import threading

from msgspec import Raw

from tests.fakes import batch_of
from twincast.core.model import DataUpdate
from twincast.journal import retention
from twincast.journal.retention import Retention
from twincast.journal.sqlite import trim
from twincast.journal.sqlite.history import apart, files
from twincast.journal.sqlite.history.layout import file_name
from twincast.journal.sqlite.history.summaries import Summaries
from twincast.journal.sqlite.history.times import iso
from twincast.journal.sqlite.journal import SqliteJournal

BATCH = 20


def text_of(seq: int) -> str:
    """Return the value of an entry."""
    return f'"{seq} {"x" * (seq % 50)}"'


def time_of(seq: int) -> str:
    """Return the time of an entry."""
    return iso(1_800_000_000_000_000 + 1_000 * seq)


async def write(path: str, kept: Retention) -> None:
    """Append for as long as this lives, in the pace in which the rest is done."""
    journal = await SqliteJournal.open(path, retention=kept)
    seq = journal._file.seq
    while True:
        numbers = range(seq + 1, seq + 1 + BATCH)
        entries = [DataUpdate(f"d{n % 7}", Raw(text_of(n).encode()), time_of(n), "rest") for n in numbers]
        seq = (await journal.append(batch_of(entries))).seqs[-1]
        print(seq, flush=True)
        if seq % 2_000 < BATCH:
            await journal.closed()
        await asyncio.sleep(0.002)


def named_too_early() -> None:
    """Have the catalog name a file before that has its name: the control."""

    def settle(new: str, first_seq: int) -> str:
        late, name = f"{new}.new", file_name(first_seq)  # which the next start removes, as any unfinished file
        os.replace(new, late)
        threading.Timer(1.0, os.replace, (late, os.path.join(os.path.dirname(new), name))).start()
        return name

    files.settle = settle


def not_summed() -> None:
    """Have the catalog not be told of the sums of what is dropped: the control of these."""
    Summaries.of = lambda self, parts: []  # type: ignore[method-assign]


if __name__ == "__main__":
    if sys.argv[6:] == ["named too early"]:
        named_too_early()
    if sys.argv[6:] == ["not summed"]:
        not_summed()
    if sys.argv[4] == "here":
        apart.made_apart = apart.made_here
    trim.SLICE_ENTRIES = 100
    retention.HEADROOM_BYTES, retention.CLOSING_BYTES = 0, 1
    entries, keep_bytes = int(sys.argv[2]), int(sys.argv[3]) or None
    kept = Retention(partition_entries=entries, keep_entries=150, keep_bytes=keep_bytes)
    asyncio.run(write(sys.argv[1], kept._replace(keep_rollups_s=1e9 if "sums" in sys.argv[5:] else None)))
