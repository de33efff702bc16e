"""A shared log becomes the journal of one server: with everything, under a name of its own."""

from contextlib import closing
from pathlib import Path

import apsw
import pytest
from msgspec import Raw

from tests.fakes import batch_of
from tests.journal.jetstream import moved
from tests.journal.jetstream.conftest import OpenStores
from tests.journal.jetstream.test_journal import names_in, shared, stored
from twincast.core.audit import Actor
from twincast.core.model import DataUpdate, Position
from twincast.errors import JournalUnusable
from twincast.journal.jetstream import move_in
from twincast.journal.jetstream.address import NatsAddress
from twincast.journal.jetstream.move_in import move_in as to_shared
from twincast.journal.jetstream.move_out import move_copy_out, move_out
from twincast.journal.sqlite.source import JournalSource
from twincast.journal.stores import Stores, open_stores
from twincast.testing import Nats


@pytest.fixture(autouse=True)
def nobody_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(move_in, "LISTEN_S", 0.05)


def told(done: int, total: int) -> None:
    """Take how far it is."""


async def made(path: str, address: NatsAddress, opened: OpenStores) -> Stores:
    """Return a server on a log with something of everything, and something behind that."""
    moved.fill(path, 3)
    moved.trim(path, 20)
    with JournalSource(path, "nats://there/lab") as journal:
        await to_shared(journal, address, Actor("local:me", ""), told)
    one = await opened("one")
    await one.journal.append(batch_of([DataUpdate("a", Raw(b"1"), "", "rest")], keys={"k": (1, "d")}))
    await stored(one)
    return one


@pytest.mark.parametrize("source", ["the log", "a copy"])
async def test_there_and_back_everything_is_as_it_was(
    source: str, nats: Nats, log_name: str, tmp_path: Path, opened: OpenStores
) -> None:
    address, target = NatsAddress.parse(nats.url(log_name)), str(tmp_path / "back.db")
    one = await made(str(tmp_path / "own.db"), address, opened)
    copy = shared(one).address.copy
    await one.close()
    before = moved.tables(copy)
    newest = before["log"][-1][0]
    position = Position(one.journal.lineage.epoch, newest)
    if source == "a copy":
        assert move_copy_out(copy, target, told) == newest
    else:
        assert await move_out(address, target, told) == newest
    assert moved.tables(target) == before == moved.tables(copy)
    assert not {name for name in names_in(tmp_path) if "moving" in name}
    own = await open_stores(f"sqlite:{target}", memory_max_bytes=0)
    try:
        assert own.journal.epoch != one.journal.epoch
        assert own.journal.lineage.why_not(position, newest) == "epoch"
        assert [key.key for key in own.journal.keys][-1] == "k"
        batch = batch_of([DataUpdate("a", Raw(b"1"), "2026-11-27T00:00:00+00:00", "rest")])
        assert (await own.journal.append(batch)).seqs[0] == newest + 1
        keyring = await own.access.keyring()
        assert keyring is not None
        assert keyring.keys
    finally:
        await own.close()
    again = address._replace(name=f"{log_name}-again", copy=str(tmp_path / "again.db"))
    with JournalSource(target, "nats://again/lab") as journal:
        assert await to_shared(journal, again, Actor("local:me", ""), told)


async def test_what_is_in_the_way_is_said_and_nothing_is_left(
    nats: Nats, log_name: str, tmp_path: Path, opened: OpenStores
) -> None:
    address, target = NatsAddress.parse(nats.url(log_name)), str(tmp_path / "back.db")
    with pytest.raises(JournalUnusable, match=f"no log '{log_name}'"):
        await move_out(address, target, told)
    one = await made(str(tmp_path / "own.db"), address, opened)
    copy = shared(one).address.copy
    with pytest.raises(JournalUnusable, match="a server runs on"):
        move_copy_out(copy, target, told)
    await one.close()
    with closing(apsw.Connection(copy)) as db:
        db.execute("delete from log where seq = 30")
    with pytest.raises(JournalUnusable, match="not whole"):
        move_copy_out(copy, target, told)
    moved.fill(str(tmp_path / "other.db"), 1, 3)
    with pytest.raises(JournalUnusable, match="a journal of one server already"):
        move_copy_out(str(tmp_path / "other.db"), target, told)
    assert not {name for name in names_in(tmp_path) if name.startswith("back.db")}
    with pytest.raises(JournalUnusable, match="is there already"):
        await move_out(address, str(tmp_path / "other.db"), told)
