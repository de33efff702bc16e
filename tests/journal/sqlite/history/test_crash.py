"""The process is killed while the log is closed, trimmed and dropped: nothing is lost, and no file is left half."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import apsw
import pytest

from tests.journal.sqlite.history.writer import BATCH, text_of, time_of
from tests.running import ROOT, eventually
from twincast.journal.sqlite.file import SqliteFile
from twincast.journal.sqlite.health import problems
from twincast.journal.sqlite.history.layout import folder_of
from twincast.journal.sqlite.lock import serves_the_file
from twincast.journal.sqlite.reader import LogReader

KILLS = int(os.environ.get("TWINCAST_TEST_KILLS", "5"))
CONTROL_KILLS_MAX = 40
PARTITION = 400
WATCH = """
create table was_closed (first_seq integer primary key, last_seq integer not null);
create table was_summed (first_seq integer primary key, last_seq integer not null);
create table was_lost (seq integer primary key, parts integer not null);
create trigger closes after insert on part when new.kind = 'closed'
begin insert into was_closed values (new.first_seq, new.last_seq); end;
create trigger sums after insert on part when new.kind = 'rollup'
begin insert into was_summed values (new.first_seq, new.last_seq); end;
create trigger loses after delete on log
when not exists (select 1 from was_closed where old.seq between first_seq and last_seq)
begin insert into was_lost values (old.seq, (select count(*) from part)); end;
"""
"""Has the journal itself remember, in the very transactions, what it has closed, summed up, and lost unclosed."""


def killed(path: str, keep_bytes: int, where: str, left: str, chance: random.Random, *fault: str) -> int:
    """Have a journal written to for a while, kill who does that, and return the last position that was acknowledged.

    What closes the log for it in a process of its own ends by itself.
    """
    command = [sys.executable, "-m", "tests.journal.sqlite.history.writer"]
    command += [path, str(PARTITION), str(keep_bytes), where, left, *fault]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(chance.randrange(1, 150)):
            acknowledged = int(process.stdout.readline())
        time.sleep(chance.random() / 20)
        process.send_signal(signal.SIGKILL)
        for line in process.stdout:
            if line.endswith("\n"):
                acknowledged = int(line)
    return acknowledged


def watch(path: str) -> None:
    """Make a journal that remembers what becomes of its log; see `unsummed`."""
    SqliteFile(path).close()
    with closing(apsw.Connection(path)) as db:
        db.execute(WATCH)


def unsummed(path: str) -> list[str]:
    """Return what is gone without a sum of it, although it was closed; or went unclosed before its turn."""
    with closing(apsw.Connection(path)) as db:

        def spans(sql: str) -> list[tuple[int, int]]:
            return [(int(first), int(last)) for first, last in db.execute(f"{sql} order by first_seq")]

        of_part = "select first_seq, last_seq from part where kind ="
        closed, summed = (spans(f"select first_seq, last_seq from {name}") for name in ("was_closed", "was_summed"))
        left = spans(f"{of_part} 'rollup'")
        found = [
            f"of {first} to {last} there never were any sums"
            for first, last in sorted({*closed} - {*summed} - {*spans(f"{of_part} 'closed'")})
        ]
        if left != summed[len(summed) - len(left) :]:
            found.append("newer sums went before older ones")
        # Only `keep_bytes` takes what was never closed, if who closes it is killed again and again; and last of all.
        needless = spans("select min(seq) as first_seq, max(seq) from was_lost where parts > 0 having count(*) > 0")
        return found + [f"{first} to {last} went unclosed, before partitions or sums" for first, last in needless]


def wait_for_names(folder: str, names: list[str]) -> None:
    """Wait until a folder has these files and no others: what was closing for a killed process has to notice it."""
    eventually(lambda: (sorted(os.listdir(folder)) if os.path.isdir(folder) else []) == names, "what is named, alone")


def damage(path: str, acknowledged: int, *, is_bounded: bool) -> list[str]:
    """Return what is lost, there twice or half, of a journal whose process was killed; it is opened once.

    A child that was being started when its parent was killed has the lock until it is another program.
    """
    found = []
    eventually(lambda: not serves_the_file(path), "it is let go")
    with closing(SqliteFile(path)) as file:
        oldest_since, newest = file.look("2026-11-23T16:24:00+00:00").oldest_since, file.seq
        parts, summaries = file.partitions.parts, file.partitions.summaries
        if newest not in {acknowledged, acknowledged + BATCH}:
            found.append(f"{acknowledged} was acknowledged, and the log ends with {newest}")
        if oldest_since and not is_bounded:
            found.append(f"what comes before {oldest_since} is gone")
        with closing(LogReader(path, file.lineage.epoch)) as reader:
            log = reader.read(oldest_since, 1 << 30)
    if [(entry.seq, bytes(entry.payload).decode(), entry.timestamp_utc) for entry in log] != [
        (seq, text_of(seq), time_of(seq)) for seq in range(oldest_since + 1, newest + 1)
    ]:
        found.append("the log is not what was written")
    found += problems(path)
    if any(one.last_seq >= other.first_seq for one, other in pairwise(summaries)):
        found.append("there are two sums of the same")
    if not found:
        wait_for_names(folder_of(path), sorted(part.file for part in (*parts, *summaries)))
    return found


@pytest.mark.parametrize(
    ("keep_bytes", "left"),
    [(0, "nothing"), (700_000, "nothing"), (700_000, "sums")],
    ids=["everything", "some bytes", "some bytes and the sums of the rest"],
)
def test_kill_nine_at_any_moment_loses_nothing_and_leaves_no_file_half(
    tmp_path: Path, keep_bytes: int, left: str
) -> None:
    path, chance = str(tmp_path / "journal.db"), random.Random(keep_bytes)
    closed = summed = number = 0
    watch(path)
    while number < KILLS or not (closed and (summed or left == "nothing")):
        assert number < KILLS + CONTROL_KILLS_MAX, "it is killed before anything is closed, or summed up"
        where = "here" if number % 4 else "apart"  # in a thread, which is sooner at work; in a process of its own
        acknowledged = killed(path, keep_bytes, where, left, chance)
        assert damage(path, acknowledged, is_bounded=bool(keep_bytes)) == [], f"kill {number}"
        assert left == "nothing" or unsummed(path) == [], f"kill {number}"
        with closing(SqliteFile(path)) as file:
            closed += len(file.partitions.parts)
            summed += len(file.partitions.summaries)
        number += 1
    assert bool(summed) == (left == "sums")


def test_if_a_file_had_its_name_after_the_catalog_a_kill_would_damage_something(tmp_path: Path) -> None:
    """The control: the same test must find that."""
    path, chance = str(tmp_path / "journal.db"), random.Random(1)
    for _ in range(CONTROL_KILLS_MAX):
        acknowledged = killed(path, 0, "here", "nothing", chance, "named too early")
        if damage(path, acknowledged, is_bounded=False):
            return
    pytest.fail(f"{CONTROL_KILLS_MAX} kills were survived by what cannot survive them")


def test_if_partitions_were_dropped_without_their_sums_a_kill_would_show_it(tmp_path: Path) -> None:
    """The control of the sums: the same test must find that."""
    path, chance = str(tmp_path / "journal.db"), random.Random(1)
    watch(path)
    for _ in range(CONTROL_KILLS_MAX):
        killed(path, 700_000, "here", "sums", chance, "not summed")
        eventually(lambda: not serves_the_file(path), "it is let go")
        if any("there never were any sums" in each for each in unsummed(path)):
            return
    pytest.fail(f"{CONTROL_KILLS_MAX} kills did not show that sums are lost")
