"""`twincast journal move`: every way that there is, by the two URLs."""

import asyncio
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from tests.journal.jetstream import moved
from twincast.cluster.engine import Engine
from twincast.cluster.local import held, refuse_other_history
from twincast.cluster.moving import move
from twincast.core.audit import Actor
from twincast.errors import JournalUnusable
from twincast.journal.jetstream import move_in
from twincast.journal.local import LocalLog
from twincast.journal.sqlite.access_file import AccessFile
from twincast.journal.stores import open_stores

ME = Actor("local:me", "command line")


@pytest.fixture(autouse=True)
def nobody_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(move_in, "LISTEN_S", 0.05)


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = str(tmp_path / "own.db")
    moved.fill(path, 1)
    return path


def told(done: int, total: int) -> None:
    """Take how far it is."""


def test_to_several_servers_and_back(path: str, nats: Engine, tmp_path: Path) -> None:
    before, url, steps = moved.tables(path), f"{nats.url}/there?copy={tmp_path}/copy.db", list[tuple[int, int]]()
    said = move(f"sqlite:{path}", url, ME, lambda done, total: steps.append((done, total)))
    assert "there has the log of" in said
    assert "copy.db" not in said
    count = len(before["log"])
    assert steps[0] == (0, count)
    assert steps[-1] == (count, count)
    move(url, f"sqlite:{tmp_path / 'back.db'}", ME, told)
    assert moved.tables(str(tmp_path / "back.db")) == before

    async def serve_once() -> None:
        await (await open_stores(url, memory_max_bytes=0)).close()

    asyncio.run(serve_once())
    move(str(tmp_path / "copy.db"), f"sqlite:{tmp_path / 'again.db'}", ME, told)
    assert moved.tables(str(tmp_path / "again.db")) == before


def test_to_the_workers_of_this_machine_and_back(path: str, tmp_path: Path) -> None:
    before, log = moved.tables(path), LocalLog.beside(path)
    with pytest.raises(JournalUnusable, match="journal move"):
        refuse_other_history(log)
    move(f"sqlite:{path}", f"workers:{path}", ME, told)
    refuse_other_history(log)
    with held(log), pytest.raises(JournalUnusable, match="workers run on"):
        move(f"workers:{path}", f"sqlite:{tmp_path / 'back.db'}", ME, told)
    move(f"workers:{path}", f"sqlite:{tmp_path / 'back.db'}", ME, told)
    assert moved.tables(str(tmp_path / "back.db")) == before


def test_workers_that_run_are_not_moved_to(path: str) -> None:
    with closing(apsw.Connection(path)) as db:
        db.execute("delete from log; delete from access_key; delete from receipt; delete from fence;")
        db.execute("update meta set value = '0' where name = 'checkpoint_seq'")
    with held(LocalLog.beside(path)), pytest.raises(JournalUnusable, match="in use by another server"):
        move(f"sqlite:{path}", f"workers:{path}", ME, told)


def test_keys_of_a_log_that_was_moved_are_not_changed_where_it_was(path: str, nats: Engine) -> None:
    move(f"sqlite:{path}", f"{nats.url}/keys", ME, told)
    with AccessFile(path) as access, pytest.raises(JournalUnusable, match="its keys are changed there"):
        access.clear("", ME)


@pytest.mark.parametrize(
    ("source", "target", "why"),
    [
        ("memory:", "nats://127.0.0.1:1/lab", "a log is moved from"),
        ("sqlite::memory:", "workers:there.db", "a log is moved from"),
        ("nats://127.0.0.1:1/lab", "nats://127.0.0.1:1/other", "begins with 'nats'|a log is moved from"),
        ("nats://127.0.0.1:1/lab", "memory:", "a log is moved from"),
        ("workers:there.db", "sqlite:back.db", "no workers have a log"),
        ("http://127.0.0.1:1/lab", "sqlite:back.db", "begins with 'http'"),
        ("sqlite:own.db", "nats://127.0.0.1:1", "the name of a shared log"),
        ("sqlite:own.db", "sqlite:back.db", "a journal of one server already"),
    ],
)
def test_other_ways_are_refused_in_words(
    source: str, target: str, why: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(path).parent)
    with pytest.raises(JournalUnusable, match=why):
        move(source, target, ME, told)
