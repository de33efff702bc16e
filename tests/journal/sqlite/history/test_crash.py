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

import pytest

from tests.journal.sqlite.history.writer import BATCH, text_of, time_of
from tests.running import ROOT
from twincast.journal.sqlite.file import SqliteFile
from twincast.journal.sqlite.health import problems
from twincast.journal.sqlite.history.layout import folder_of
from twincast.journal.sqlite.reader import LogReader
from twincast.testing import eventually

KILLS = int(os.environ.get("TWINCAST_TEST_KILLS", "5"))
PARTITION = 400


def killed(path: str, keep_bytes: int, where: str, left: str, chance: random.Random) -> int:
    """Have a journal written to for a while, kill who does that, and return the last position that was acknowledged.

    What closes the log for it in a process of its own ends by itself.
    """
    command = [sys.executable, "-m", "tests.journal.sqlite.history.writer"]
    command += [path, str(PARTITION), str(keep_bytes), where, left]
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


def wait_for_names(folder: str, names: list[str]) -> None:
    """Wait until a folder has these files and no others: what was closing for a killed process has to notice it."""
    eventually(lambda: (sorted(os.listdir(folder)) if os.path.isdir(folder) else []) == names, "what is named, alone")


@pytest.mark.parametrize(
    ("keep_bytes", "left"),
    [(0, "nothing"), (700_000, "nothing"), (700_000, "sums")],
    ids=["everything", "some bytes", "some bytes and the sums of the rest"],
)
def test_kill_nine_at_any_moment_loses_nothing_and_leaves_no_file_half(
    tmp_path: Path, keep_bytes: int, left: str
) -> None:
    path, chance = str(tmp_path / "journal.db"), random.Random(keep_bytes)
    closed = summed = 0
    for number in range(KILLS):
        where = "here" if number % 4 else "apart"  # in a thread, which is sooner at work; in a process of its own
        acknowledged = killed(path, keep_bytes, where, left, chance)
        with closing(SqliteFile(path)) as file:
            oldest_since, newest, parts = file.look("2026-11-23T16:24:00+00:00").oldest_since, file.seq, file.parts
            summaries = file.summaries
            assert newest in {acknowledged, acknowledged + BATCH}
            assert oldest_since == 0 or keep_bytes
            with closing(LogReader(path, file.lineage.epoch)) as reader:
                log = reader.read(oldest_since, 1 << 30)
        assert [(entry.seq, bytes(entry.payload).decode(), entry.timestamp_utc) for entry in log] == [
            (seq, text_of(seq), time_of(seq)) for seq in range(oldest_since + 1, newest + 1)
        ]
        assert problems(path) == []
        wait_for_names(folder_of(path), sorted(part.file for part in (*parts, *summaries)))
        assert not summaries or summaries[-1].last_seq >= oldest_since  # the log itself may have some of it still
        assert all(one.last_seq < other.first_seq for one, other in pairwise(summaries))
        summed += len(summaries)
        closed += len(parts)
    assert closed
    assert bool(summed) == (left == "sums")
