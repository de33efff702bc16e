"""The log that the workers of one machine share: who may have it, and what it refuses to shadow."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec import Raw

from tests.credentials import add_key
from tests.fakes import batch_of
from twincast.cluster import engine, local
from twincast.cluster.engine import Engine, running_in
from twincast.cluster.local import held, reached, refuse_other_history
from twincast.core.model import DataUpdate
from twincast.errors import ExtraMissing, JournalUnusable, TwincastError
from twincast.journal.jetstream.address import TOKEN, NatsAddress
from twincast.journal.jetstream.link import Link
from twincast.journal.local import LocalLog
from twincast.journal.sqlite.journal import SqliteJournal
from twincast.journal.stores import open_stores
from twincast.journal.url import local_log_of, required_file_of


@pytest.fixture
def log(tmp_path: Path) -> LocalLog:
    return LocalLog.beside(str(tmp_path / "twincast.db"))


def is_begun(log: LocalLog) -> bool:
    return os.path.exists(log.folder)


def begin(log: LocalLog, engine_url: str, token: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the stream, as the first worker does."""
    monkeypatch.setenv(TOKEN, token or "")

    async def make() -> None:
        address = NatsAddress.parse(log.url(engine_url, "worker-1"))
        link = await Link.connect(address)
        subjects = [address.log_subject, address.keys_subject]
        await link.ask(f"STREAM.CREATE.{address.stream}", {"name": address.stream, "subjects": subjects})
        await link.close()

    asyncio.run(make())


def test_the_log_has_a_folder_beside_the_journal_also_by_a_link(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "here.db").symlink_to(tmp_path / "data" / "there.db")
    log = LocalLog.beside(str(tmp_path / "here.db"))
    assert log.folder == str(tmp_path / "data" / "there.db-workers")
    assert not log.is_there


def test_the_url_for_a_worker_has_its_copy_and_its_name(tmp_path: Path) -> None:
    log = LocalLog.beside(str(tmp_path / "a b?c=&d.db"))
    address = NatsAddress.parse(log.url("nats://127.0.0.1:4222", "worker-2"))
    assert address.copy == log.copy("worker-2") == f"{log.folder}/worker-2.db"
    assert (address.servers, address.server_name) == (("nats://127.0.0.1:4222",), "worker-2")


def test_a_journal_leads_to_the_log_once_that_has_begun(log: LocalLog, monkeypatch: pytest.MonkeyPatch) -> None:
    assert local_log_of(f"workers:{log.path}") == log
    assert local_log_of(f"sqlite:{log.path}") is None
    with held(log) as (engine, _):
        assert local_log_of(f"sqlite:{log.path}") is None, "the folder alone is no log"
        begin(log, engine.url, engine.token, monkeypatch)
        assert local_log_of(f"sqlite:{log.path}") == log
    assert local_log_of(f"sqlite:{log.path}") == log
    assert local_log_of("memory:") is local_log_of("sqlite::memory:") is local_log_of("nats://h/lab") is None


def test_what_is_done_to_the_file_of_a_journal_is_done_to_a_copy_that_is_named(
    log: LocalLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held(log) as (engine, _):
        begin(log, engine.url, engine.token, monkeypatch)
    with pytest.raises(JournalUnusable, match=re.escape(f"such as sqlite:{log.folder}/worker-1.db")):
        required_file_of(f"sqlite:{log.path}")
    assert required_file_of(f"sqlite:{log.copy('worker-1')}") == log.copy("worker-1")


def test_a_second_supervisor_is_refused_and_so_is_a_single_server(log: LocalLog) -> None:
    with held(log):
        with pytest.raises(JournalUnusable, match="in use by another server"), held(log):
            pass
        with pytest.raises(JournalUnusable, match="in use by another server"):
            asyncio.run(open_stores(f"sqlite:{log.path}", memory_max_bytes=1 << 20))


def test_a_start_that_is_refused_leaves_nothing_behind(
    tmp_path: Path, log: LocalLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(match: str, error: type[TwincastError] = JournalUnusable) -> None:
        before = sorted(os.listdir(tmp_path))
        with pytest.raises(error, match=match), held(log):
            pass
        assert sorted(os.listdir(tmp_path)) == before

    with monkeypatch.context() as patches:
        patches.setattr(engine, "PROGRAM", "no-such-program")
        refuse("is not installed", ExtraMissing)

    def ends(engine: Engine) -> None:
        raise JournalUnusable("NATS ended at its start")

    with monkeypatch.context() as patches:
        patches.setattr(Engine, "start", ends)
        refuse("ended at its start")
        os.mkdir(log.folder)  # which somebody has made beforehand: it is not ours to remove
        refuse("ended at its start")
    Path(log.path).write_text("not a journal")
    refuse("not a journal")


def test_what_a_supervisor_held_is_free_when_it_ends(log: LocalLog) -> None:
    with held(log) as (first, _):
        assert first.is_running
        token = first.token
    assert not first.is_running
    with held(log) as (second, _):
        assert second.token == token


def test_the_workers_of_a_killed_supervisor_are_waited_for(log: LocalLog, monkeypatch: pytest.MonkeyPatch) -> None:
    with held(log) as (_, lock):
        worker = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[lock])
    with monkeypatch.context() as patch:
        patch.setattr(local, "LEFT_S", 0.2)
        with pytest.raises(JournalUnusable, match="workers of an earlier start still run"), held(log):
            pass
    worker.communicate(b"\n")
    with held(log):
        pass


def test_the_server_of_a_command_is_waited_for(log: LocalLog, monkeypatch: pytest.MonkeyPatch) -> None:
    with reached(log) as engine:
        monkeypatch.setattr(local, "LEFT_S", 0.2)
        with pytest.raises(JournalUnusable, match="another NATS server runs"), held(log):
            pass
        assert engine.is_running
    with held(log):
        pass


def test_a_command_finds_the_server_that_runs_and_leaves_it_running(log: LocalLog) -> None:
    with held(log) as (engine, _):
        with reached(log) as found:
            assert (found.url, found.token) == (engine.url, engine.token)
        assert engine.is_running
    with reached(log) as own:
        assert own.is_running and own.token == engine.token
    assert not own.is_running


def test_what_a_killed_server_has_written_is_no_address(log: LocalLog) -> None:
    with held(log) as (engine, _):
        engine.kill()
        assert list(engine.folder.glob("*.ports"))
        assert running_in(engine.folder) is None
        with reached(log) as found:
            assert found.is_running


@pytest.fixture
async def ordinary(log: LocalLog) -> LocalLog:
    """A journal that one server has begun."""
    await (await SqliteJournal.open(log.path)).close()
    return log


async def test_an_empty_journal_of_one_server_is_no_hindrance(ordinary: LocalLog) -> None:
    refuse_other_history(ordinary)


async def test_a_journal_with_entries_is_not_shadowed_and_the_line_that_moves_it_is_told(ordinary: LocalLog) -> None:
    journal = await SqliteJournal.open(ordinary.path)
    await journal.append(batch_of([DataUpdate("a", Raw(b"1"), "now", "rest")]))
    await journal.close()
    line = f"twincast journal move sqlite:{ordinary.path} workers:{ordinary.path}"
    with pytest.raises(JournalUnusable, match=re.escape(line)), held(ordinary):
        pass
    assert not is_begun(ordinary)


def test_whoever_moves_a_journal_has_both_and_no_server_has_either(log: LocalLog) -> None:
    add_key(log.path, "lab/gateway", publish=["*"])
    with held(log, is_moved=True) as (engine, _):
        assert engine.is_running
        with pytest.raises(JournalUnusable, match="in use by another server"):
            asyncio.run(open_stores(f"sqlite:{log.path}", memory_max_bytes=1 << 20))


async def test_a_journal_with_keys_is_not_shadowed_either(ordinary: LocalLog) -> None:
    add_key(ordinary.path, "lab/gateway", publish=["*"])
    with pytest.raises(JournalUnusable, match="journal move"):
        refuse_other_history(ordinary)


def test_two_histories_are_told_and_none_is_chosen(log: LocalLog, monkeypatch: pytest.MonkeyPatch) -> None:
    with held(log) as (engine, _):
        begin(log, engine.url, engine.token, monkeypatch)
    add_key(f"{log.path}-elsewhere", "lab/gateway", publish=["*"])
    os.rename(f"{log.path}-elsewhere", log.path)
    with pytest.raises(JournalUnusable, match="there are two journals"), held(log):
        pass


def test_a_file_that_is_no_journal_is_told(log: LocalLog) -> None:
    Path(log.path).write_text("a letter, of more than a hundred bytes" * 40)
    with pytest.raises(JournalUnusable, match="is not a journal"), held(log):
        pass


def test_a_folder_that_cannot_be_made_is_told(log: LocalLog) -> None:
    Path(log.folder).write_text("a file")
    with pytest.raises(JournalUnusable, match=f"cannot keep their log in {re.escape(log.folder)}"), held(log):
        pass
