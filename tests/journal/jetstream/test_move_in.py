"""A journal of one server becomes a shared log: all of it, as it was, or nothing that a server would open."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from msgspec import Raw

from tests.fakes import LONG_S, batch_of
from tests.journal.jetstream import moved
from tests.journal.jetstream.conftest import OpenStores
from tests.journal.jetstream.test_journal import delete, shared, stored
from tests.journal.sqlite.history.making import close_log
from twincast.core.audit import Actor
from twincast.core.lineage import Generation
from twincast.core.model import DataUpdate, Deleted, Position
from twincast.core.peers import Heartbeat, encode_heartbeat
from twincast.errors import JournalUnavailable, JournalUnusable, TooLarge, TwincastError
from twincast.journal.jetstream import move_in as moving
from twincast.journal.jetstream.address import NatsAddress
from twincast.journal.jetstream.commit import decode_commit
from twincast.journal.jetstream.copy_file import CopyFile, Step
from twincast.journal.jetstream.fold import Fold, Folded
from twincast.journal.jetstream.key_changes import decode_change
from twincast.journal.jetstream.link import Link
from twincast.journal.jetstream.stream import nanoseconds
from twincast.journal.sqlite import source
from twincast.journal.sqlite.access_file import AccessFile
from twincast.journal.sqlite.file import SqliteFile
from twincast.journal.sqlite.journal import SqliteJournal
from twincast.journal.sqlite.source import JournalSource
from twincast.journal.stores import Stores
from twincast.testing import Nats

ACTOR = Actor("local:me", "")
Move = Callable[[], Awaitable[int]]


@pytest.fixture(autouse=True)
def nobody_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "LISTEN_S", 0.05)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "own.db")


@pytest.fixture
def address(nats: Nats, log_name: str) -> NatsAddress:
    return NatsAddress.parse(nats.url(log_name))


@pytest.fixture
def move(address: NatsAddress, path: str) -> Move:
    async def once() -> int:
        with JournalSource(path, f"nats://there/{address.name}") as journal:
            return await moving.move_in(journal, address, ACTOR, lambda done, total: None)

    return once


def address_of(stores: Stores) -> NatsAddress:
    return shared(stores).address


async def copy_of(stores: Stores) -> str:
    await stored(stores)
    return address_of(stores).copy


@pytest.mark.parametrize("seed", range(4))
async def test_everything_is_there_as_it_was(seed: int, path: str, move: Move, opened: OpenStores) -> None:
    moved.fill(path, seed)
    before = moved.tables(path)
    assert all(before.values()), "there is something of everything"
    assert await move() == len(before["log"])
    assert moved.tables(await copy_of(await opened("one"))) == before


@pytest.mark.parametrize("trimmed", [0, 40])
async def test_a_log_in_partitions_is_moved_as_one_that_is_not(
    trimmed: int, path: str, move: Move, opened: OpenStores
) -> None:
    moved.fill(path, 9)
    if trimmed:
        moved.trim(path, trimmed)
    before = moved.tables(path)
    close_log(path, 50)
    assert len(moved.tables(path)["log"]) < 60
    assert await move() == len(before["log"])
    assert moved.tables(await copy_of(await opened("one"))) == before


@pytest.mark.parametrize(("seed", "entries"), [(5, 1), (6, 40), (7, 300), (8, 10**6)])
async def test_a_trimmed_journal_keeps_its_positions_and_its_state(
    seed: int, entries: int, path: str, move: Move, opened: OpenStores
) -> None:
    moved.fill(path, seed)
    moved.trim(path, min(entries, newest_of(path) - 1))
    before = moved.tables(path)
    await move()
    stores = await opened("one")
    oldest = before["log"][0][0]
    assert stores.journal.oldest_since == oldest - 1 > 0
    assert moved.tables(await copy_of(stores)) == before
    snapshot = await stores.journal.snapshot()
    assert {name: twin.seq for name, twin in snapshot.twins.items()} == {row[0]: row[4] for row in before["twin"]}


def newest_of(path: str) -> int:
    with closing(SqliteFile(path)) as file:
        return file.seq


async def test_places_of_an_erased_history_are_moved_as_what_they_are(
    path: str, move: Move, opened: OpenStores
) -> None:
    moved.fill(path, 11)
    journal = await SqliteJournal.open(path)
    at_utc = "2026-01-02T00:00:00.000000+00:00"
    await journal.append(batch_of([Deleted("device 1", at_utc, "rest", scope="history")]))
    await journal.erased()
    await journal.close()
    before = moved.tables(path)
    assert len([row for row in before["log"] if row[1] == "erased"]) > 10
    assert await move() == len(before["log"])
    stores = await opened("one")
    copy = await copy_of(stores)
    await shared(stores).erased()
    assert moved.tables(copy) == before


async def test_the_log_goes_on_behind_it(path: str, move: Move, opened: OpenStores) -> None:
    moved.fill(path, 1)
    newest, newest_at = moved.tables(path)["log"][-1][0], moved.tables(path)["log"][-1][5]
    await move()
    one = await opened("one")
    (seq,) = (await one.journal.append(batch_of([DataUpdate("a", Raw(b"1"), "", "rest")]))).seqs
    assert seq == newest + 1
    assert (await one.journal.read(newest, 1))[0].timestamp_utc >= newest_at
    other = await opened("other")
    assert moved.tables(await copy_of(other)) == moved.tables(await copy_of(one))
    assert other.journal.keys == one.journal.keys
    assert other.journal.marks == one.journal.marks


async def test_positions_of_clients_are_of_another_log_from_then_on(path: str, move: Move, opened: OpenStores) -> None:
    with closing(SqliteFile(path)) as file:
        file.append(batch_of([DataUpdate("a", Raw(b"1"), moved.BEGAN.isoformat(), "rest")]))
        position = Position(file.lineage.epoch, 1)
    await move()
    one = await opened("one")
    assert one.journal.lineage.why_not(position, 1) == "epoch"


async def test_the_audit_trail_says_that_it_was_moved(path: str, move: Move, opened: OpenStores) -> None:
    moved.fill(path, 1)
    await move()
    one = await opened("one")
    await stored(one)
    ((_, record),) = await one.access.audit(1)
    assert (record.who, record.action) == ("local:me", "move")


async def test_an_empty_journal_with_keys_can_be_moved(path: str, move: Move, opened: OpenStores) -> None:
    SqliteFile(path).close()
    moved._change_keys(path, "n")
    before = moved.tables(path)
    assert await move() == 0
    one = await opened("one")
    assert moved.tables(await copy_of(one)) == before
    assert (await one.access.keyring()) is not None


async def test_a_server_does_not_start_on_what_was_moved_and_the_file_says_where_it_is(
    path: str, move: Move, address: NatsAddress
) -> None:
    moved.fill(path, 1)
    before = moved.tables(path)
    await move()
    with pytest.raises(JournalUnusable, match=f"was moved to nats://there/{address.name}"):
        SqliteFile(path)
    assert moved.tables(path) == before
    with pytest.raises(JournalUnusable, match="was moved to"):
        JournalSource(path, "nats://elsewhere/lab")
    with closing(apsw.Connection(path)) as db:
        db.execute("delete from meta where name = 'moved_to'")
    SqliteFile(path).close()


async def test_there_must_be_no_such_log(path: str, move: Move, opened: OpenStores) -> None:
    moved.fill(path, 1, 5)
    one = await opened("one")  # whose stream is empty
    await one.close()
    await move()
    with pytest.raises(JournalUnusable, match="already, with something in it"):
        await move()


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("after", [0, 1, 3, 6])
async def test_an_interrupted_move_is_opened_by_no_server_and_can_be_begun_again(
    after: int, path: str, move: Move, opened: OpenStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved.fill(path, 2)
    before = moved.tables(path)
    store, stored_count = Link.store, 0

    async def some(self: Link, *arguments: object, **named: object) -> int:
        nonlocal stored_count
        if stored_count == after:
            raise Interrupted
        stored_count += 1
        return await store(self, *arguments, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(Link, "store", some)
        with pytest.raises(Interrupted):
            await move()
    with pytest.raises(JournalUnusable, match="or that was interrupted"):
        await opened("one")
    with closing(SqliteFile(path)) as file:  # which is as it was, and can be served
        assert file.seq == before["log"][-1][0]
    await move()
    assert moved.tables(await copy_of(await opened("one"))) == before


async def test_a_move_that_ends_between_its_two_marks_can_be_begun_again(
    path: str, move: Move, opened: OpenStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved.fill(path, 2)
    before = moved.tables(path)

    async def fails(link: Link, address: NatsAddress) -> None:
        raise JournalUnavailable("NATS is gone")

    with monkeypatch.context() as patched:
        patched.setattr(moving, "end_move", fails)
        with pytest.raises(JournalUnavailable):
            await move()
    for opens in (lambda: SqliteFile(path), None):
        with pytest.raises(JournalUnusable, match="move"):
            opens() if opens else await opened("one")
    await move()
    assert moved.tables(await copy_of(await opened("one"))) == before


async def test_of_two_moves_at_once_nothing_is_mixed(
    path: str, address: NatsAddress, tmp_path: Path, opened: OpenStores
) -> None:
    other = f"{path}-2"
    moved.fill(path, 1)
    moved.fill(other, 2)

    async def move(one: str) -> int:
        with JournalSource(one, "nats://there/lab") as journal:
            return await moving.move_in(journal, address, ACTOR, lambda done, total: None)

    results = await asyncio.gather(move(path), move(other), return_exceptions=True)
    assert all(isinstance(each, int | TwincastError) for each in results), results
    assert sum(isinstance(each, int) for each in results) <= 1
    if all(isinstance(each, TwincastError) for each in results):
        with pytest.raises(JournalUnusable, match="or that was interrupted"):
            await opened("one")
        await move(path)
    copy = moved.tables(await copy_of(await opened("one")))
    assert copy in (moved.tables(path), moved.tables(other))


async def test_what_another_program_writes_meanwhile_is_noticed(
    path: str, move: Move, address: NatsAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved.fill(path, 1)
    read_back = moving._read_back

    async def write_and_read(link: Link, to: NatsAddress, sender: moving._Sender) -> None:
        await link.store(to.log_subject, b'{"by":"x","n":1,"runs":[]}')
        await read_back(link, to, sender)

    monkeypatch.setattr(moving, "_read_back", write_and_read)
    with pytest.raises(JournalUnusable, match="does not hold what was moved"):
        await move()
    SqliteFile(path).close()


async def test_a_source_that_is_served_and_a_log_that_is_served_are_refused(
    path: str, move: Move, address: NatsAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved.fill(path, 1, 5)
    with closing(SqliteFile(path)), pytest.raises(JournalUnusable, match="in use by another server"):
        await move()
    monkeypatch.setattr(moving, "LISTEN_S", LONG_S)
    link = await Link.connect(address)
    beat = Heartbeat(
        id="0" * 16,
        name="hall-2",
        version="1",
        fold=1,
        since_utc="",
        epoch="",
        seq=0,
        stream_seq=0,
        stored_stream_seq=0,
        checks={},
        clients=0,
        by_identity={},
        by_address={},
        spent={},
        settings="",
        ready=True,
        leaving=False,
    )

    async def beats() -> None:
        while True:
            await link.publish(f"twincast.{address.name}.server.{beat.id}", encode_heartbeat(beat, 4096))
            await asyncio.sleep(0.01)

    beating = asyncio.create_task(beats())
    try:
        with pytest.raises(JournalUnusable, match="hall-2 runs on the log"):
            await move()
    finally:
        beating.cancel()
        await link.close()


async def test_no_server_starts_and_no_key_changes_while_it_is_moved(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved.fill(path, 1, 5)
    with JournalSource(path, "nats://there/lab"):
        with pytest.raises(JournalUnusable, match="in use by another server"):
            SqliteFile(path)
        with AccessFile(path) as access:
            access._db.set_busy_timeout(1)
            with pytest.raises(JournalUnavailable):
                access.revoke("none", "", ACTOR)


async def test_what_cannot_be_moved_is_refused_in_words(path: str, move: Move, tmp_path: Path) -> None:
    with pytest.raises(JournalUnusable, match="there is no journal"):
        await move()
    with closing(apsw.Connection(path)) as db:
        db.execute("create table other (x)")
    with pytest.raises(JournalUnusable, match="not a twincast journal"):
        await move()
    delete(tmp_path, "own.db")
    moved.fill(path, 1, 5)
    with closing(apsw.Connection(path)) as db:
        db.execute("delete from log where seq = 3")
    with pytest.raises(JournalUnusable, match="is not whole"):
        await move()


async def test_a_journal_of_the_future_is_refused(path: str, move: Move) -> None:
    with closing(SqliteFile(path)) as file:
        for at_utc in ("2999-01-01T00:00:00.000000+00:00", "2026-01-01T00:00:00.000000+00:00"):
            batch = batch_of([DataUpdate("a", Raw(b"1"), at_utc, "rest")])
            batch.stamp(at_utc)
            file.append(batch)
    with pytest.raises(JournalUnusable, match="entry 1 is of 2999"):
        await move()


async def test_stretches_are_split_where_nats_takes_small_messages_and_one_entry_is_not(
    path: str, move: Move, opened: OpenStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved.fill(path, 3)
    before = moved.tables(path)
    monkeypatch.setattr(Link, "max_payload_bytes", 3_000)
    monkeypatch.setattr(moving, "PART_BYTES", 300)
    await move()
    monkeypatch.undo()
    one = await opened("one")
    assert moved.tables(await copy_of(one)) == before
    with closing(SqliteFile(path + "2")) as file:
        file.append(batch_of([DataUpdate("a", Raw(json.dumps("x" * 5_000).encode()), moved.BEGAN.isoformat(), "rest")]))
    monkeypatch.setattr(Link, "max_payload_bytes", 3_000)
    with JournalSource(path + "2", "nats://there/2") as journal, pytest.raises(TooLarge, match="max_payload"):
        address = address_of(one)._replace(name="other")
        await moving.move_in(journal, address, ACTOR, lambda done, total: None)


async def test_a_copy_that_ends_behind_any_message_of_a_move_goes_on_from_there(
    path: str, move: Move, opened: OpenStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved.fill(path, 4)
    moved.trim(path, 50)
    before = moved.tables(path)
    monkeypatch.setattr(moving, "PART_BYTES", 200)
    monkeypatch.setattr(source, "STRETCH_ENTRIES", 10)
    await move()
    one = shared(await opened("one"))
    again = f"{path}-again"
    for stream_seq in range(1, one.place.stream_seq + 1):
        message = (await one.link.ask(f"STREAM.MSG.GET.{one.address.stream}", {"seq": stream_seq}))["message"]
        stamp_ns, data = nanoseconds(message["time"]), base64.b64decode(message["data"])
        with closing(CopyFile(again, one.address.name, one.epoch, Generation("g", 0))) as file:
            fold = Fold(file.beginning())
            if message["subject"] == one.address.keys_subject:
                change = decode_change(data)
                file.store([Step(Folded(fold.pass_by(stream_seq, stamp_ns, data)), change, fold.at_utc)])
            else:
                file.store([Step(fold.take(stream_seq, stamp_ns, data, decode_commit(data)))])
    assert stream_seq > 50
    assert fold.place == one.place
    assert moved.tables(again) == before
