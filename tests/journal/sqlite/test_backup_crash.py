"""A backup is killed while it is made, of a log that is closed meanwhile: it is whole, or it is no backup."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from tests import warm
from tests.journal.sqlite.history.test_crash import KILLS, PARTITION, damage
from tests.journal.sqlite.history.writer import text_of
from tests.running import ROOT, eventually
from twincast.journal.sqlite.file import SqliteFile
from twincast.journal.sqlite.health import problems
from twincast.journal.sqlite.reader import LogReader

LIVES_S = 0.1
"""How long a backup is let alone at the longest; the first one not at all."""
FILLED = 3_000
"""How many entries there are before the first backup."""


def journal(*words: str) -> list[str]:
    return [sys.executable, "-m", "twincast", "journal", *words]


def kill_while_backing_up(path: str, folder: Path, lives_s: float) -> None:
    """Make a backup, and kill it so long after it has begun to write."""
    with warm.Popen(
        journal("backup", str(folder), "--journal", f"sqlite:{path}"),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        eventually(folder.exists, "it has begun")
        time.sleep(lives_s)
        process.send_signal(signal.SIGKILL)


def restored(folder: Path, path: Path) -> str:
    """Restore a backup; return what was said of one that is none."""
    done = warm.run(
        journal("restore", str(folder), "--journal", f"sqlite:{path}"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return str(done.stderr) if done.returncode else ""


def is_as_written(path: Path) -> bool:
    with closing(SqliteFile(str(path))) as file, closing(LogReader(str(path), file.lineage.epoch)) as reader:
        log = reader.read(0, 1 << 30)
        newest = file.seq
    return newest >= FILLED and [(entry.seq, bytes(entry.payload).decode()) for entry in log] == [
        (seq, text_of(seq)) for seq in range(1, newest + 1)
    ]


def test_kill_nine_while_backing_up_leaves_a_whole_backup_or_none(tmp_path: Path) -> None:
    path, chance = str(tmp_path / "journal.db"), random.Random(2)
    whole = 0
    command = [
        sys.executable,
        "-m",
        "tests.journal.sqlite.history.writer",
        path,
        str(PARTITION),
        "0",
        "here",
        "nothing",
    ]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writing:
        assert writing.stdout is not None
        try:
            acknowledged = 0
            while acknowledged < FILLED:
                acknowledged = int(writing.stdout.readline())
            writing.send_signal(signal.SIGSTOP)  # it goes on for a moment between two backups: the log stays small
            for number in range(KILLS):
                writing.send_signal(signal.SIGCONT)
                folder, copy = tmp_path / f"backup {number}", tmp_path / "restored" / "journal.db"
                kill_while_backing_up(path, folder, chance.uniform(0.0, LIVES_S) if number else 0.0)
                writing.send_signal(signal.SIGSTOP)
                copy.parent.mkdir()
                refused = restored(folder, copy)
                if refused:
                    assert "is no backup, or was not finished" in refused
                    assert os.listdir(copy.parent) == []
                else:
                    assert problems(str(copy)) == []
                    assert is_as_written(copy)
                    whole += 1
                for each in (folder, copy.parent):
                    shutil.rmtree(each, ignore_errors=True)
        finally:
            writing.send_signal(signal.SIGKILL)
        acknowledged = max([acknowledged, *(int(line) for line in writing.stdout if line.endswith("\n"))])
    assert damage(path, acknowledged, is_bounded=False) == []
    assert whole < KILLS, "some were killed before they were whole"
