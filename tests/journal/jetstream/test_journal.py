"""Several servers on one log: whatever one of them is answered, all of them have, at the same position."""

import asyncio
import base64
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import apsw
import pytest
from msgspec import Raw
from nats.aio.msg import Msg

from tests.fakes import LONG_S, batch_of
from tests.journal.jetstream.conftest import OpenStores
from tests.running import eventually_async
from twincast.core.audit import Actor
from twincast.core.batch import ENTRY_BYTES, Batch, Committed
from twincast.core.idempotency import IdempotencyKey, IdempotencyRecord
from twincast.core.model import Control, DataUpdate, Deleted, Position
from twincast.core.producers import NumberedLine, ProducerMark
from twincast.errors import JournalUnavailable, JournalUnusable, KeyReused, LinePassed, LogReplaced, TooLarge
from twincast.journal.jetstream import copy_file, stream, writer
from twincast.journal.jetstream import journal as jetstream
from twincast.journal.jetstream.commit import Commit, commit_of, encode_commit
from twincast.journal.jetstream.journal import JetStreamJournal
from twincast.journal.sqlite.journal import SqliteJournal
from twincast.journal.stores import Stores, open_stores
from twincast.testing import Nats
from twincast.wire.messages import encode

NO_TIME = ""
SQLITE_WAL_PAGES, SQLITE_CACHE = 1_000, -2_000
"""What SQLite has unless it is told otherwise."""


def reading(device_id: str = "a", value: bytes = b"1") -> DataUpdate:
    return DataUpdate(device_id, Raw(value), NO_TIME, "rest")


def shared(stores: Stores) -> JetStreamJournal:
    assert stores.shared is not None
    return stores.shared


async def has_folded(one: Stores, other: Stores) -> None:
    """Wait until a server is where another one is."""
    async with asyncio.timeout(LONG_S):
        await shared(one).when_folded(shared(other).place.stream_seq)


async def log_of(stores: Stores) -> list[bytes]:
    return [encode(entry) for entry in await stores.journal.read(0, 10_000)]


async def stored(stores: Stores) -> None:
    """Wait until a server's copy has what it has folded."""
    await eventually_async(lambda: shared(stores).stored_stream_seq == shared(stores).place.stream_seq, "it is stored")


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def delete(folder: Path, pattern: str) -> None:
    for file in folder.glob(pattern):
        file.unlink()


async def test_servers_count_the_same_whichever_of_them_appends(opened: OpenStores) -> None:
    one, other = await opened("one"), await opened("other")
    assert one.journal.lineage.epoch == other.journal.lineage.epoch
    for number, server in enumerate((one, other, one, other)):
        await server.journal.append(
            batch_of([reading("a", b"%d" % number), Control("a", "on", Raw(b"{}"), "", "rest")])
        )
    await has_folded(one, other)
    await has_folded(other, one)
    log = await log_of(one)
    assert [json.loads(entry)["seq"] for entry in log] == list(range(1, 9))
    assert log == await log_of(other)
    assert shared(one).place == shared(other).place


async def test_each_server_erases_a_history_in_its_own_copy(opened: OpenStores, tmp_path: Path) -> None:
    mark = b"salty-secret"
    one, other = await opened("one"), await opened("other")
    for number in range(30):
        await one.journal.append(batch_of([reading("a", b'"%s"' % mark), reading("b", b"%d" % number)]))
    await has_folded(other, one)
    await stored(one)
    await stored(other)

    def holding() -> list[str]:
        return sorted(file.name for file in tmp_path.rglob("*.db*") if file.is_file() and mark in file.read_bytes())

    assert len(holding()) >= 2, "control: both copies have it"
    await other.journal.append(batch_of([Deleted("a", NO_TIME, "rest", scope="history")]))
    await has_folded(one, other)
    for stores in one, other:
        assert not any(mark in entry for entry in await log_of(stores))
        await shared(stores).when_stored()
        await shared(stores).erased()
        assert [each.held_by for each in await stores.journal.erasures()] == [("stream",)]
    assert holding() == []
    assert await log_of(one) == await log_of(other)
    late = await opened("late")
    await stored(late)
    await shared(late).erased()
    assert holding() == [], "one that reads the stream from its beginning erases it, too"
    assert [json.loads(entry)["type"] for entry in await log_of(late)] == ["erased", "data_update"] * 30 + ["deleted"]


async def test_a_batch_has_its_positions_and_the_time_of_the_stream(opened: OpenStores) -> None:
    one = await opened("one")
    batch = batch_of([reading(), reading()])
    assert (await one.journal.append(batch)).seqs == range(1, 3)
    assert [entry.seq for entry in batch.entries] == [1, 2]
    assert {entry.epoch for entry in batch.entries} == {one.journal.lineage.epoch}
    assert batch.entries[0].timestamp_utc == batch.timestamp_utc != NO_TIME
    assert encode(batch.entries[0]) == (await log_of(one))[0]


def measured(device_id: str, ago_s: float) -> DataUpdate:
    at_utc = (datetime.now(UTC) - timedelta(seconds=ago_s)).isoformat(timespec="microseconds")
    return DataUpdate(device_id, Raw(b"1"), NO_TIME, "rest", measured_at_utc=at_utc)


async def test_servers_decide_alike_which_readings_are_late_wherever_each_began(
    opened: OpenStores, tmp_path: Path
) -> None:
    one, other = await opened("one"), await opened("other")
    await one.journal.append(batch_of([measured("a", 10), reading("gone"), measured("c", -3_600)]))
    await other.journal.append(batch_of([Deleted("gone", NO_TIME, "rest"), measured("a", 20)]))
    await has_folded(one, other)
    await stored(one)
    await one.close()  # its copy has all of it
    one = await opened("one")
    newcomer = await opened("newcomer")  # folds all of it
    for server in (one, other, newcomer):
        batch = batch_of([measured("a", 15), measured("gone", 60), measured("c", 60), measured("new", 60)])
        await server.journal.append(batch)
        assert [entry.kind for entry in batch.entries] == ["late"] * 3 + ["data_update"]
        assert batch.has_late
    for server in (one, newcomer):
        await has_folded(server, newcomer)
        assert await log_of(server) == await log_of(newcomer)
        assert (await server.journal.snapshot()).twins.keys() == {"a", "c", "new"}
        assert shared(server).place == shared(newcomer).place
        await stored(server)
    files = [tmp_path / f"{name}.db" for name in ("one", "newcomer")]
    rows = [apsw.Connection(str(file)).execute("select * from deletion").fetchall() for file in files]
    assert rows[0] == rows[1] and [row[0] for row in rows[0]] == ["gone"]


async def test_a_log_of_the_first_version_is_opened_and_its_servers_are_not_stopped_by_a_deletion(
    opened: OpenStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        before.setattr(stream, "FOLD_VERSION", 1)
        one = await opened("one")
    versions: list[int] = []
    fold = shared(one)._fold
    take = fold.take

    def noted(seq: int, stamp_ns: int, data: bytes, commit: Commit, own: Any = None) -> Any:
        versions.append(commit.fold)
        return take(seq, stamp_ns, data, commit, own)

    monkeypatch.setattr(fold, "take", noted)
    deletion = Deleted("a", NO_TIME, "rest")
    await one.journal.append(batch_of([reading("a"), deletion]))
    await one.journal.append(batch_of([measured("b", 9)]))
    await one.journal.append(batch_of([reading("a")]))
    await one.journal.append(batch_of([Deleted("a", NO_TIME, "rest")]))
    assert versions == [1, 2, 1, 2], "from the first claim on the log is of the second version"
    await stored(one)
    await one.close()
    one = await opened("one")
    assert shared(one)._fold.version == 2
    assert list(shared(one)._fold.deletions) == ["a"]


def keyed(key: str, digest: str, answers: list[Any]) -> Batch:
    batch = Batch()
    batch.add_all(
        [reading()], 0, lambda error, seq: answers.append(error or seq), key=IdempotencyKey(key, digest, answers.append)
    )
    return batch


async def test_a_key_holds_on_every_server(opened: OpenStores) -> None:
    one, other = await opened("one"), await opened("other")
    answers: list[Any] = []
    for server, digest in ((one, "d"), (other, "d"), (other, "e")):
        batch = keyed("k", digest, answers)
        batch.commit(await server.journal.append(batch))
    assert answers[:2] == [1, IdempotencyRecord("k", 1, 1, "d")]
    assert isinstance(answers[2], KeyReused)
    assert len(await log_of(other)) == 1


async def test_a_numbered_line_is_stored_once_whichever_server_it_comes_by(opened: OpenStores) -> None:
    one, other = await opened("one"), await opened("other")
    answers: list[Any] = []
    for server, number in ((one, 2), (other, 2), (other, 1), (other, 3)):
        batch = Batch()
        line = NumberedLine("me", "p", number, answers.append)
        batch.add_all([reading()], 0, lambda error, seq: answers.append(error or seq), line=line)
        batch.commit(await server.journal.append(batch))
    assert [answers[0], answers[1], answers[3]] == [1, 1, 2]
    assert isinstance(answers[2], LinePassed)
    await has_folded(one, other)
    assert one.journal.marks == other.journal.marks == (ProducerMark("me", "p", 3, 2, 0b10),)


async def test_what_belongs_to_entries_comes_with_them_from_the_tail_and_from_the_copy(opened: OpenStores) -> None:
    one = await opened("one")
    await one.journal.append(batch_of([reading(), reading()], keys={"k": (2, "d")}))

    async def first() -> Committed:
        return await anext(aiter(one.journal.follow(0)))

    assert (await first()).keys == (IdempotencyRecord("k", 1, 2, "d"),)
    await stored(one)
    await one.close()
    again = await opened("one")
    committed = await anext(aiter(again.journal.follow(0)))
    assert committed.keys == again.journal.keys == (IdempotencyRecord("k", 1, 2, "d"),)


async def test_a_copy_goes_on_where_it_is_and_one_that_was_deleted_is_made_anew(
    opened: OpenStores, tmp_path: Path
) -> None:
    one, other = await opened("one"), await opened("other")
    await one.journal.append(batch_of([reading("a")], keys={"k": (1, "d")}))
    await other.close()
    await one.journal.append(batch_of([reading("b")]))
    other = await opened("other")
    log = await log_of(one)
    assert await log_of(other) == log
    await other.close()
    delete(tmp_path, "other.db*")
    other = await opened("other")
    assert await log_of(other) == log
    assert shared(other).place == shared(one).place
    assert other.journal.keys == one.journal.keys
    assert set((await other.journal.snapshot()).twins) == {"a", "b"}


async def test_the_audit_trail_names_the_server(opened: OpenStores) -> None:
    one, other = await opened("hall"), await opened("yard")
    command = Control("fan", "on", Raw(b"{}"), NO_TIME, "rest")
    await one.journal.append(batch_of([command], actors={0: Actor("key:1", "::1")}))
    await has_folded(other, one)
    await stored(other)
    ((_, record),) = await other.access.audit(10)
    assert (record.who, record.address, record.action, record.seq, record.server) == (
        "key:1",
        "::1",
        "command",
        1,
        "hall",
    )


async def test_a_position_of_any_server_counts_on_all(opened: OpenStores) -> None:
    one, other = await opened("one"), await opened("other")
    await one.journal.append(batch_of([reading()]))
    await has_folded(other, one)
    position = Position(one.journal.lineage.epoch, 1)
    assert other.journal.lineage.why_not(position, 1) == ""
    await other.close()
    other = await opened("other")
    assert other.journal.lineage.why_not(position, 1) == "", "a start begins no generation"


async def test_a_batch_that_nats_cannot_take_is_refused_and_the_next_is_not(opened: OpenStores) -> None:
    one = await opened("one")
    with pytest.raises(TooLarge, match="max_payload"):
        await one.journal.append(batch_of([reading(value=b'"' + b"x" * shared(one).link.max_payload_bytes + b'"')]))
    assert one.journal.problem is None
    assert (await one.journal.append(batch_of([reading()]))).seqs == range(1, 2)


async def test_a_copy_of_a_commit_stores_nothing(opened: OpenStores) -> None:
    one = await opened("one")
    await one.journal.append(batch_of([reading()]))
    link, address = shared(one).link, shared(one).address
    message = await link.ask(f"STREAM.MSG.GET.{address.stream}", {"seq": 1})
    place = await link.store(address.log_subject, base64.b64decode(message["message"]["data"]))  # without its id
    await shared(one).when_folded(place)
    assert len(await log_of(one)) == 1


async def test_what_was_given_up_is_not_stored_behind_the_next(opened: OpenStores) -> None:
    one = await opened("one")
    await one.journal.append(batch_of([reading()]))
    await one.journal.append(batch_of([reading()]))
    late = encode_commit(Commit(shared(one).server_id, 1))
    await shared(one).when_folded(await shared(one).link.store(shared(one).address.log_subject, late))
    assert (await one.journal.append(batch_of([reading()]))).seqs == range(3, 4)


async def test_without_nats_nothing_is_taken_reads_go_on_and_it_works_again(
    log_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "GIVE_UP_S", 1.0)
    with Nats() as nats:
        stores = await open_stores(nats.url(log_name, copy=str(tmp_path / "a.db")), memory_max_bytes=0)
        try:
            await stores.journal.append(batch_of([reading()]))
            nats.kill(0)
            with pytest.raises(JournalUnavailable):
                await stores.journal.append(batch_of([reading()]))
            assert stores.journal.problem is not None
            assert len(await log_of(stores)) == 1
            await asyncio.to_thread(nats.start, 0)
            await eventually_async(lambda: stores.journal.problem is None, "it works again by itself")
            placed = await stores.journal.append(batch_of([reading()]))
            assert len(await log_of(stores)) == placed.seqs[-1]
        finally:
            await stores.close()


async def test_a_stream_that_was_deleted_or_made_anew_ends_what_follows_it(
    opened: OpenStores, nats: Nats, tmp_path: Path
) -> None:
    one = await opened("one")
    await one.journal.append(batch_of([reading()]))
    follower = aiter(one.journal.follow(1))
    waiting = asyncio.ensure_future(anext(follower))
    await asyncio.to_thread(nats.delete_stream, shared(one).address.stream.removeprefix("twincast_"))
    with pytest.raises(LogReplaced, match=r"deleted|made anew"):
        await asyncio.wait_for(waiting, LONG_S)
    epoch = one.journal.epoch
    await stored(one)
    await one.close()
    again = await opened("one")
    assert again.journal.epoch != epoch
    assert await log_of(again) == []
    assert f"one.db.{epoch}" in names_in(tmp_path), "the copy of the log that is no more is kept"


async def test_a_log_that_has_lost_its_end_begins_another_generation(
    opened: OpenStores, tmp_path: Path, nats: Nats, log_name: str
) -> None:
    one, other = await opened("one"), await opened("other")
    await one.journal.append(batch_of([reading("kept")]))
    await has_folded(other, one)
    await one.close()
    await other.close()
    # As if the disk of NATS had forgotten it: the copy has a message more than the stream.
    await asyncio.to_thread(forge_longer_copy, str(tmp_path / "one.db"))
    before = Position(other.journal.lineage.epoch, 1)
    again = await opened("one")
    assert (again.journal.epoch, again.journal.lineage.why_not(before, 1)) == (other.journal.epoch, "")
    assert again.journal.lineage.epoch != before.epoch
    assert len(await log_of(again)) == 1
    late = await opened("other")
    assert late.journal.lineage.epoch == again.journal.lineage.epoch
    assert f"one.db.{before.epoch}" in names_in(tmp_path)


def forge_longer_copy(path: str) -> None:
    """Make a copy that has more than the stream."""
    db = apsw.Connection(path)
    stream_seq, *rest = db.execute("select value from meta where name = 'stream_place'").get.split()
    place = " ".join([str(int(stream_seq) + 5), *rest])
    db.execute("update meta set value = ? where name = 'stream_place'", (place,))
    db.close()


async def test_a_running_server_notices_that_the_log_lost_its_end(opened: OpenStores) -> None:
    one, other = await opened("one"), await opened("other")
    await one.journal.append(batch_of([reading()]))
    await has_folded(other, one)
    waiting = [asyncio.ensure_future(anext(aiter(stores.journal.follow(1)))) for stores in (one, other)]
    generation = shared(one)._fold.generation
    await stream.fork(shared(one).link, shared(one).address, generation)
    for each in waiting:
        with pytest.raises(LogReplaced, match="lost its end"):
            await asyncio.wait_for(each, LONG_S)


async def test_a_journal_of_its_own_is_not_taken_for_a_copy(opened: OpenStores, tmp_path: Path) -> None:
    journal = await SqliteJournal.open(str(tmp_path / "one.db"))
    await journal.append(batch_of([reading()]))
    await journal.close()
    with pytest.raises(JournalUnusable, match="a journal of its own"):
        await opened("one")


async def test_a_copy_is_not_taken_for_a_journal_of_its_own(opened: OpenStores, tmp_path: Path) -> None:
    await (await opened("one")).close()
    with pytest.raises(JournalUnusable, match="copy of the shared log"):
        await SqliteJournal.open(str(tmp_path / "one.db"))


async def test_a_copy_of_another_log_is_refused_by_name(opened: OpenStores, nats: Nats, tmp_path: Path) -> None:
    await (await opened("one")).close()
    with pytest.raises(JournalUnusable, match="copy of another shared log"):
        await open_stores(nats.url("elsewhere", copy=str(tmp_path / "one.db")), memory_max_bytes=0)


async def test_two_servers_on_one_copy_are_refused(opened: OpenStores) -> None:
    await opened("one")
    with pytest.raises(JournalUnusable, match="in use by another server"):
        await opened("one")


async def test_a_follower_from_far_back_reads_the_copy(opened: OpenStores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jetstream, "TAIL_MAX_BYTES", 1)
    monkeypatch.setattr(jetstream, "UNSTORED_MAX_BYTES", 1)
    one = await opened("one")
    for number in range(20):
        await one.journal.append(batch_of([reading(value=b"%d" % number)]))
    seqs: list[int] = []
    async for committed in one.journal.follow(0):
        seqs += [entry.seq for entry in committed.entries]
        if seqs[-1] == 20:
            break
    assert seqs == list(range(1, 21))


async def test_small_and_large_commits_are_the_same_in_the_copy(
    opened: OpenStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy_file, "RUN_MIN", 4)
    one = await opened("one")
    for size in (1, 5, 2, 9):
        await one.journal.append(batch_of([reading(f"d{n}", b'{"n":%d}' % n) for n in range(size)]))
    before = await log_of(one)
    await one.close()
    assert await log_of(await opened("one")) == before


@pytest.mark.parametrize("kind", ["torn", "newer"])
async def test_a_copy_that_cannot_be_used_is_said_to_be_one(opened: OpenStores, tmp_path: Path, kind: str) -> None:
    await (await opened("one")).close()
    await asyncio.to_thread(spoil, tmp_path / "one.db", kind)
    with pytest.raises(JournalUnusable, match=r"copy of the log .* is made anew"):
        await opened("one")
    delete(tmp_path, "one.db*")
    assert await log_of(await opened("one")) == []


def spoil(path: Path, kind: str) -> None:
    if kind == "torn":
        path.write_bytes(b"\xff" * 8_192)
        return
    db = apsw.Connection(str(path))
    db.pragma("user_version", 99)
    db.close()


async def test_a_stream_at_its_limit_is_said_to_be_full_and_nothing_is_stored(opened: OpenStores) -> None:
    one = await opened("one")
    link, address = shared(one).link, shared(one).address
    info = await link.ask(f"STREAM.INFO.{address.stream}")
    await link.ask(f"STREAM.UPDATE.{address.stream}", info["config"] | {"max_bytes": 2_000})
    large = reading(value=b'"' + b"x" * 1_500 + b'"')
    await one.journal.append(batch_of([large]))
    with pytest.raises(JournalUnavailable, match=r"no room .* nothing was stored"):
        await one.journal.append(batch_of([large]))
    assert one.journal.problem is not None
    assert len(await log_of(one)) == 1
    await link.ask(f"STREAM.UPDATE.{address.stream}", info["config"] | {"max_bytes": -1})
    await eventually_async(lambda: one.journal.problem is None, "it works again by itself")
    assert (await one.journal.append(batch_of([large]))).seqs == range(2, 3)


async def test_what_waits_for_the_copy_is_not_lost_with_the_connection_and_is_told(
    opened: OpenStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jetstream, "UNSTORED_MAX_BYTES", 1)
    monkeypatch.setattr(jetstream, "STORE_AGAIN_S", 0.05)
    one, other = await opened("one"), await opened("other")
    journal, is_full = shared(one), True
    store = journal._copy.store

    def store_if_there_is_room(steps: Any) -> None:
        if is_full:
            raise JournalUnavailable("database or disk is full")
        store(steps)

    monkeypatch.setattr(journal._copy, "store", store_if_there_is_room)
    for number in range(3):
        await other.journal.append(batch_of([reading(value=b"%d" % number)]))
    await eventually_async(
        lambda: journal.problem is not None, "the first waits for the copy, the second for the first"
    )
    assert "disk full" in str(journal.problem)
    with pytest.raises(JournalUnavailable, match="nothing was stored"):
        await journal.append(batch_of([reading()]))
    journal._stream._fail(JournalUnavailable("the connection was lost"))
    await eventually_async(lambda: not journal._waits_for_copy, "the consumer is given up")
    await eventually_async(lambda: journal._waits_for_copy, "another one brings the second again")
    is_full = False
    await has_folded(one, other)
    await stored(one)
    assert journal.problem is None
    assert await log_of(one) == await log_of(other)
    assert [entry.seq for entry in await journal._reader_worker.do(journal._reader.read, 0, 10, None)] == [1, 2, 3]


async def test_servers_compare_what_came_of_each_message(opened: OpenStores) -> None:
    one = await opened("one")
    await one.journal.append(batch_of([reading()]))
    place = shared(one).place
    assert shared(one).checks.told() == {place.stream_seq: place.crc}


@pytest.mark.parametrize("below_bytes", [0, 1, 30, 60, 90])
async def test_a_message_that_is_too_large_by_its_header_alone_is_refused(opened: OpenStores, below_bytes: int) -> None:
    one = await opened("one")
    link = shared(one).link
    changes: list[bool] = []
    link.on_connection.append(changes.append)
    aside = len(encode_commit(commit_of(batch_of([reading(value=b'""')]), "0" * 16, 1, server="one", after=0)))
    value = b'"' + b"x" * (link.max_payload_bytes - aside - below_bytes) + b'"'
    with pytest.raises(TooLarge, match="max_payload"):
        await one.journal.append(batch_of([reading(value=value)]))
    assert (await one.journal.append(batch_of([reading()]))).seqs == range(1, 2)
    assert changes == []


async def test_a_refusal_of_one_attempt_says_nothing_of_the_next(opened: OpenStores) -> None:
    one = await opened("one")
    for attempts, outcome in ((1, "nothing was stored"), (2, "may be stored")):
        own = writer.Own(Commit("w", 1), [], asyncio.get_running_loop().create_future(), attempts)
        shared(one).writer._own[f"{shared(one).server_id}:7"] = own
        refusal = b'{"error":{"err_code":10077,"description":"maximum bytes exceeded"}}'
        await shared(one).writer._receipt(Msg(shared(one).link._client, "receipts.7", data=refusal))
        with pytest.raises(JournalUnavailable, match=outcome):
            own.folded.result()
        del shared(one).writer._own[f"{shared(one).server_id}:7"]


async def test_a_leader_of_before_that_tells_of_an_older_stream_is_not_believed(
    opened: OpenStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await opened("one")
    for _ in range(3):
        await one.journal.append(batch_of([reading()]))
    seen = asyncio.Event()

    async def older_facts(link: Any, address: Any, **how: Any) -> stream.StreamFacts:
        facts = await stream.stream_facts(link, address, **how)
        if seen.is_set():
            return facts
        seen.set()
        return facts._replace(last_seq=1)

    monkeypatch.setattr(jetstream, "stream_facts", older_facts)
    shared(one)._stream._fail(JournalUnavailable("the connection was lost"))
    await asyncio.wait_for(seen.wait(), LONG_S)
    assert (await one.journal.append(batch_of([reading()]))).seqs == range(4, 5)
    assert len(shared(one)._fold.generations) == 1


async def test_a_clock_that_jumps_ends_no_server_that_serves(
    opened: OpenStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await opened("one")
    monkeypatch.setattr(stream, "CLOCKS_APART_MAX_S", -1.0)
    await shared(one)._check()


async def test_many_small_submissions_of_all_kinds_fit_into_the_commit_that_they_are_put_in(
    opened: OpenStores,
) -> None:
    one, batch = await opened("one"), Batch()
    max_bytes = one.journal.batch_max_bytes
    assert max_bytes is not None
    while batch.text_bytes < max_bytes:
        for entry in (reading(), Control("a", "b", Raw(b"{}"), "", "websocket")):
            text = b'{"device_id":"a","value":1}' if isinstance(entry, DataUpdate) else b'{"target":"a","command":"b"}'
            actor = None if isinstance(entry, DataUpdate) else Actor("key:ab12", "203.0.113.7")
            batch.add_all([entry], len(text) + ENTRY_BYTES, lambda _error, _seq: None, actor=actor)
    assert (await one.journal.append(batch)).seqs == range(1, len(batch.entries) + 1)


async def test_a_new_server_is_ready_while_others_go_on_writing(
    opened: OpenStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await opened("one")

    async def write() -> None:
        while True:
            await one.journal.append(batch_of([reading()]))

    writing = asyncio.ensure_future(write())
    store = copy_file.CopyFile.store

    def slow(file: copy_file.CopyFile, *steps: Any) -> Any:
        time.sleep(0.05)  # so that there is always more before all is stored
        return store(file, *steps)

    monkeypatch.setattr(copy_file.CopyFile, "store", slow)
    other = await asyncio.wait_for(opened("other"), LONG_S)
    writing.cancel()
    await asyncio.wait([writing])
    await has_folded(other, one)
    assert await log_of(other) == await log_of(one)


async def test_a_server_that_has_caught_up_stores_in_usual_bites(
    opened: OpenStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await opened("one")
    for _ in range(10):
        await one.journal.append(batch_of([reading(f"d{number}", b'"%b"' % (b"x" * 1_000)) for number in range(100)]))
    await stored(one)
    seen: list[int] = []
    store = copy_file.CopyFile.store

    def looking(file: copy_file.CopyFile, *steps: Any) -> Any:
        seen.append(file._db.pragma("wal_autocheckpoint"))
        return store(file, *steps)

    monkeypatch.setattr(copy_file.CopyFile, "store", looking)
    newcomer = await opened("newcomer")
    assert set(seen) == {copy_file.CATCHING_UP_WAL_PAGES}
    copy = shared(newcomer)._copy
    assert copy.checkpoint_seq == copy.seq == 1_000, "a start has nothing to replay"
    seen.clear()
    await newcomer.journal.append(batch_of([reading()]))
    await stored(newcomer)
    assert set(seen) == {SQLITE_WAL_PAGES}
    assert copy._db.pragma("cache_size") == SQLITE_CACHE


async def test_whoever_waits_for_a_message_is_told_when_none_comes(opened: OpenStores) -> None:
    one = await opened("one")
    waiting = [
        asyncio.ensure_future(shared(one).when_folded(1_000)),
        asyncio.ensure_future(shared(one).when_keys_change(shared(one).key_table.version)),
    ]
    await asyncio.sleep(0)
    await one.close()
    for each in waiting:
        with pytest.raises(JournalUnavailable):
            await asyncio.wait_for(each, LONG_S)
