"""What every journal promises, held to all of them alike."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Raw

from tests.conftest import JournalUrl
from tests.fakes import batch_of
from tests.running import eventually_async
from twincast.core.audit import Actor
from twincast.core.batch import Batch, Committed, Placed
from twincast.core.idempotency import IdempotencyRecord
from twincast.core.model import KINDS, Control, DataUpdate, Deleted, Entry, Erased, Position, Snapshot
from twincast.core.pattern import pattern_set
from twincast.core.producers import WINDOW_LINES, ProducerMark
from twincast.core.state import State
from twincast.errors import JournalUnusable, Truncated
from twincast.history.query import EntriesQuery, Names
from twincast.journal.retention import Retention
from twincast.journal.sqlite.history import apart
from twincast.journal.sqlite.journal import SqliteJournal
from twincast.journal.stores import Journal, Stores, open_stores
from twincast.journal.url import required_file_of
from twincast.wire.messages import encode

NOW_UTC = "2026-11-23T16:24:00.123456+00:00"
Open = Callable[[], Awaitable[Stores]]


@pytest.fixture(params=["memory", "sqlite", "closed", "jetstream"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def open_kind(kind: str, journal_url: JournalUrl, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Open a journal of each kind, the same at each call; "closed" is SQLite's with most of it in partitions."""
    if kind != "closed":
        return lambda: open_stores(journal_url(kind), memory_max_bytes=64 * 1024 * 1024)
    monkeypatch.setattr(apart, "made_apart", apart.made_here)
    monkeypatch.setattr(SqliteJournal, "append", _append_and_close)
    retention = Retention(partition_entries=3, keep_entries=1)
    return lambda: open_stores(journal_url("sqlite"), memory_max_bytes=0, retention=retention)


@pytest.fixture
async def stores(open_kind: Open) -> AsyncIterator[Stores]:
    """Each kind of journal, empty, with its keys and audit trail."""
    stores = await open_kind()
    yield stores
    await stores.close()


_append = SqliteJournal.append


async def _append_and_close(journal: SqliteJournal, batch: Batch) -> Placed:
    placed = await _append(journal, batch)
    await journal.closed()
    return placed


@pytest.fixture
def journal(stores: Stores) -> Journal:
    """Each kind of journal, empty."""
    return stores.journal


@pytest.fixture
def reopened(durable_kind: str, journal_url: JournalUrl) -> Open:
    """Open the one durable journal of the test, which must be closed."""
    return lambda: open_stores(journal_url(durable_kind), memory_max_bytes=0)


@pytest.fixture
def time_of(request: pytest.FixtureRequest) -> Callable[[Batch], str]:
    """Return when a batch was stored: by the clock of its sender, but on a shared log, whose clock is the stream's."""

    def time_of(batch: Batch) -> str:
        is_shared = "jetstream" in {request.node.callspec.params.get(name) for name in ("kind", "durable_kind")}
        assert is_shared != (batch.timestamp_utc in {"", NOW_UTC})
        return batch.timestamp_utc if is_shared else NOW_UTC

    return time_of


def reading(device_id: str = "a", value: bytes = b"1") -> DataUpdate:
    return DataUpdate(device_id, Raw(value), NOW_UTC, "rest")


def order(target: str = "a") -> Control:
    return Control(target, "on", Raw(b'{"x":[1]}'), NOW_UTC, "websocket")


def deletion(device_id: str = "a") -> Deleted:
    return Deleted(device_id, NOW_UTC, "rest")


def erasure(device_id: str = "a") -> Deleted:
    return Deleted(device_id, NOW_UTC, "rest", scope="history")


def plain(entries: Sequence[Entry]) -> list[Any]:
    """Return entries as what they are on the wire: their bytes, which compare."""
    return [encode(entry) for entry in entries]


async def follow(journal: Journal, since: int, until: int) -> list[Entry]:
    """Follow from a position until another has come."""
    return [entry async for committed in followed(journal, since, until) for entry in committed.entries]


async def followed(journal: Journal, since: int, until: int) -> AsyncIterator[Committed]:
    """Follow from a position until another has come."""
    async for committed in journal.follow(since):
        yield committed
        if committed.seqs[-1] >= until:
            return


async def cancelled_after(turns: int, work: Coroutine[Any, Any, Any]) -> None:
    """Let work run for some turns of the loop, cancel it, and wait for its end."""
    task = asyncio.create_task(work)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])


def fold(epoch: str, entries: Sequence[Entry]) -> Snapshot:
    state = State(Snapshot(epoch, 0, {}))
    for entry in entries:
        state.apply(entry)
    return Snapshot(state.epoch, state.seq, state.twins)


def is_same(one: Snapshot, other: Snapshot) -> bool:
    def sorted_twins(snapshot: Snapshot) -> list[tuple[str, bytes]]:
        return sorted((device_id, encode(twin)) for device_id, twin in snapshot.twins.items())

    return (one.epoch, one.seq, sorted_twins(one)) == (other.epoch, other.seq, sorted_twins(other))


async def test_a_journal_says_how_much_it_holds_since_when(journal: Journal, time_of: Callable[[Batch], str]) -> None:
    assert (journal.space().entries, journal.space().oldest_at_utc) == (0, None)
    batch = batch_of([reading(), order(), deletion()])
    await journal.append(batch)
    space = await eventually_async(lambda: journal.space() if journal.space().oldest_at_utc else None, "it is known")
    assert space is not None
    assert (space.entries, space.oldest_seq, space.oldest_at_utc) == (3, 1, time_of(batch))
    assert space.used_bytes > 0
    assert (space.growth_bytes_per_s, space.full_in_s, space.problem) == (None, None, None)


# epoch


async def test_an_epoch_is_a_short_word_that_stays(journal: Journal) -> None:
    epoch = journal.epoch
    assert epoch.isalnum() and 4 <= len(epoch) <= 32
    await journal.append(batch_of([reading()]))
    assert journal.epoch == epoch


async def test_what_is_said_of_a_position_names_the_log_and_the_run(journal: Journal) -> None:
    batch: list[Entry] = [reading(), order()]
    await journal.append(batch_of(batch))
    epoch = journal.lineage.epoch
    log, _, generation = epoch.partition("-")
    assert (log, len(generation)) == (journal.epoch, 8)
    read, recent, snapshot = await journal.read(0, 10), journal.recent(0), await journal.snapshot()
    assert {entry.epoch for entry in [*batch, *read, *recent, *await follow(journal, 0, 2)]} == {epoch}
    assert snapshot.epoch == epoch
    assert journal.lineage.why_not(Position(epoch, 2), snapshot.seq) == ""
    assert journal.lineage.why_not(Position(journal.epoch, 0), snapshot.seq) == "epoch", (
        "a log that is new has no other"
    )


# append


async def test_positions_begin_at_one_and_have_no_gaps(journal: Journal) -> None:
    spans = [(await journal.append(batch_of([reading() for _ in range(size)]))).seqs for size in (1, 3, 2)]
    assert spans == [range(1, 2), range(2, 5), range(5, 7)]


async def test_append_gives_each_entry_its_seq_in_the_order_of_the_batch(journal: Journal) -> None:
    batch: list[Entry] = [reading("a"), order(), reading("b")]
    await journal.append(batch_of([reading()]))
    await journal.append(batch_of(batch))
    assert [entry.seq for entry in batch] == [2, 3, 4]


async def test_batches_that_are_appended_at_once_do_not_mix(journal: Journal) -> None:
    batches: list[list[Entry]] = [[reading(f"{batch}", b"%d" % n) for n in range(7)] for batch in range(20)]
    placed = await asyncio.gather(*(journal.append(batch_of(batch)) for batch in batches))
    spans = [each.seqs for each in placed]
    assert sorted(seq for span in spans for seq in span) == list(range(1, 141))
    log = await journal.read(0, 1_000)
    for batch, span in zip(batches, spans, strict=True):
        assert plain(log[span[0] - 1 : span[-1]]) == plain(batch)


async def test_marks_are_stored_with_their_batch_the_newest_of_each_producer(kind: str, open_kind: Open) -> None:
    stores = await open_kind()
    journal = stores.journal
    assert list(journal.marks) == []
    everything = (1 << WINDOW_LINES) - 1
    await journal.append(batch_of([reading()]))
    await journal.append(
        batch_of(
            [reading(), reading()],
            lines={0: ("", "p", 1), 1: ("key:a", "p", 2_000)},
            marks=[ProducerMark("", "p", 1, 0), ProducerMark("key:a", "p", 2_000, 1, everything)],
        )
    )
    await journal.append(
        batch_of([reading(), reading()], lines={1: ("", "p", 3)}, marks=[ProducerMark("", "p", 3, 1, 0b1)])
    )
    if kind != "memory":
        await stores.close()
        stores = await open_kind()
        journal = stores.journal
    assert list(journal.marks) == [ProducerMark("key:a", "p", 2_000, 3, everything), ProducerMark("", "p", 3, 5, 0b1)]
    await stores.close()


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5])
async def test_a_cancelled_append_is_stored_whole_or_not_at_all(journal: Journal, turns: int) -> None:
    await journal.append(batch_of([reading("before")]))
    await cancelled_after(turns, journal.append(batch_of([reading("cancelled") for _ in range(50)])))
    last = (await journal.append(batch_of([reading("after")]))).seqs[-1]
    log = await journal.read(0, 1_000)
    assert [entry.seq for entry in log] == list(range(1, last + 1))
    assert last in {2, 52}
    assert plain(await follow(journal, 0, last)) == plain(log)
    assert (await journal.snapshot()).seq == last


async def test_an_append_that_is_cancelled_under_way_reaches_its_followers(journal: Journal) -> None:
    await cancelled_after(1, journal.append(batch_of([reading("a"), reading("b")])))  # it has begun: it will be stored
    assert [entry.seq for entry in await follow(journal, 0, 2)] == [1, 2]


# read


async def test_read_returns_what_was_appended(journal: Journal) -> None:
    batch: list[Entry] = [reading("a", b'{"x":[1,null]}'), order("b"), reading("c", b'""'), deletion("a")]
    await journal.append(batch_of(batch))
    assert plain(await journal.read(0, 10)) == plain(batch)


async def test_read_follows_a_position_and_takes_no_more_than_asked(journal: Journal) -> None:
    for size in (4, 1, 5):
        await journal.append(batch_of([reading() for _ in range(size)]))
    for since in range(11):
        for limit in (1, 3, 100):
            found = [entry.seq for entry in await journal.read(since, limit)]
            assert found == list(range(since + 1, min(since + limit, 10) + 1))


async def test_read_stops_at_the_entry_that_makes_it_enough_bytes(journal: Journal) -> None:
    await journal.append(batch_of([reading("a", b'"%b"' % (b"x" * 998)) for _ in range(7)]))
    await journal.append(
        batch_of([Control("a", "on", Raw(b'{"x":"%b"}' % (b"x" * 992)), NOW_UTC, "rest") for _ in range(3)])
    )
    for max_bytes, count in ((0, 1), (1, 1), (1_000, 1), (1_001, 2), (3_000, 3), (1_000_000, 10)):
        assert len(await journal.read(0, 100, max_bytes=max_bytes)) == count
    assert [entry.seq for entry in await journal.read(6, 100, max_bytes=2_500)] == [7, 8, 9]
    assert len(await journal.read(0, 2, max_bytes=3_000)) == 2


async def test_read_of_an_empty_log_and_at_its_end_returns_nothing(journal: Journal) -> None:
    assert not await journal.read(0, 10)
    await journal.append(batch_of([reading()]))
    assert not await journal.read(1, 10)
    assert not await journal.read(1_000, 10)


async def test_a_position_before_the_log_is_truncated(journal: Journal) -> None:
    await journal.append(batch_of([reading()]))
    with pytest.raises(Truncated):
        await journal.read(-1, 10)


TEXTS = [
    *(b"-0 1.0 1E+5 1e-7 0.1000000000000000055 18446744073709551615 -9223372036854775808".split()),
    *(b'"" "\\u0041\\/\\b" "\\u0000" "\\ud83d\\ude00" "a:\\"b\\"" null true false [] {} [[],{}]'.split()),
    '"é\U0001f600\u2028\x7f"'.encode(),
    b'{"a":{"b":[1.50,"c d",null]},"":0,"\\u0061":1}',
    b"[" * 32 + b"]" * 32,
]


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: repr(text[:30]))
async def test_the_text_of_a_value_comes_back_byte_for_byte(journal: Journal, text: bytes) -> None:
    args = b'{"x":%b}' % text
    await journal.append(batch_of([reading("a", text), Control("a", "on", Raw(args), NOW_UTC, "rest")]))
    update, control = await journal.read(0, 2)
    assert isinstance(update, DataUpdate) and isinstance(control, Control)
    assert (bytes(update.value), bytes(control.args)) == (text, args)
    assert bytes((await journal.snapshot()).twins["a"].value) == text


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), children, max_size=4)
    ),
    max_leaves=10,
)
names = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=128)


@given(device_id=names, value=json_values, ensure_ascii=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=60)
async def test_any_value_of_any_device_comes_back_byte_for_byte(
    journal: Journal, device_id: str, value: Any, ensure_ascii: bool
) -> None:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=ensure_ascii).encode()
    entry = reading(device_id, text)
    [seq] = (await journal.append(batch_of([entry]))).seqs
    assert plain(await journal.read(seq - 1, 1)) == plain([entry])
    twin = (await journal.snapshot()).twins[device_id]
    assert (bytes(twin.value), twin.seq) == (text, seq)


# snapshot


async def test_the_snapshot_of_an_empty_log_is_empty(journal: Journal) -> None:
    assert is_same(await journal.snapshot(), Snapshot(journal.lineage.epoch, 0, {}))


async def test_the_snapshot_is_the_fold_of_the_log(journal: Journal) -> None:
    for batch in range(20):
        readings = [reading(f"{n * batch % 11}", b"%d" % batch) for n in range(5)]
        await journal.append(
            batch_of([order(), *readings[:3], deletion(f"{batch % 7}"), *readings[3:], deletion("unknown")])
        )
        assert is_same(await journal.snapshot(), fold(journal.lineage.epoch, await journal.read(0, 1_000)))


async def test_a_deleted_device_is_in_no_snapshot_and_a_later_reading_makes_it_anew(journal: Journal) -> None:
    await journal.append(batch_of([reading("a"), reading("b")]))
    await journal.append(batch_of([deletion("a")]))
    assert set((await journal.snapshot()).twins) == {"b"}
    await journal.append(batch_of([deletion("b"), reading("a", b"7"), deletion("a"), reading("a", b"8")]))
    twins = (await journal.snapshot()).twins
    assert {name: (bytes(twin.value), twin.seq) for name, twin in twins.items()} == {"a": (b"8", 7)}


async def test_a_snapshot_is_the_callers_own(journal: Journal) -> None:
    await journal.append(batch_of([reading("a")]))
    mine = await journal.snapshot()
    mine.twins.clear()
    await journal.append(batch_of([reading("b")]))
    assert mine.twins == {}
    assert set((await journal.snapshot()).twins) == {"a", "b"}


# follow


async def test_a_follower_gets_what_was_there_and_then_what_comes(journal: Journal) -> None:
    await journal.append(batch_of([reading(), reading()]))
    follower = journal.follow(1)
    assert [entry.seq for entry in (await anext(follower)).entries] == [2]
    coming = asyncio.ensure_future(anext(follower))
    await journal.append(batch_of([reading(), order()]))
    assert [entry.seq for entry in (await coming).entries] == [3, 4]


async def test_followers_get_everything_in_order_however_many_append(journal: Journal) -> None:
    followers = [asyncio.create_task(follow(journal, since, 300)) for since in (0, 0, 50, 299)]

    async def append_many(name: str) -> None:
        for number in range(20):
            await journal.append(batch_of([reading(name, b"%d" % number) for _ in range(5)]))

    await asyncio.gather(*(append_many(name) for name in "abc"))
    log = plain(await journal.read(0, 1_000))
    for task, since in zip(followers, (0, 0, 50, 299), strict=True):
        assert plain(await task) == log[since:]


async def test_a_follower_of_a_future_position_waits_for_what_follows_it(journal: Journal) -> None:
    following = asyncio.create_task(follow(journal, 3, 4))
    await journal.append(batch_of([reading() for _ in range(3)]))
    await journal.append(batch_of([reading("fourth")]))
    assert [entry.seq for entry in await following] == [4]


async def test_a_snapshot_and_what_follows_it_are_the_state_later(journal: Journal) -> None:
    await journal.append(batch_of([reading("a"), reading("b")]))
    state = State(await journal.snapshot())
    await journal.append(batch_of([reading("a", b"2"), order(), reading("c")]))
    for entry in await follow(journal, state.seq, 5):
        state.apply(entry)
    assert is_same(Snapshot(state.epoch, state.seq, state.twins), await journal.snapshot())


async def test_a_follower_gets_the_keys_and_marks_that_were_stored_with_a_batch(journal: Journal) -> None:
    await journal.append(batch_of([reading(), reading(), order()], keys={"one": (1, "d1"), "two": (2, "d2")}))
    await journal.append(
        batch_of([reading(), reading()], lines={1: ("key:a", "p", 2)}, marks=[ProducerMark("key:a", "p", 2, 1, 0b1)])
    )
    keys, marks = [IdempotencyRecord("one", 1, 1, "d1"), IdempotencyRecord("two", 2, 3, "d2")], []
    for since in range(5):
        found = [committed async for committed in followed(journal, since, 5)]
        assert [record for committed in found for record in committed.keys] == keys[since and (1 if since < 3 else 2) :]
        marks = [mark for committed in found for mark in committed.marks]
        assert marks == [ProducerMark("key:a", "p", 2, 5, 0b1)]
    if journal.keys:  # as of now, for a journal that was not just opened
        assert list(journal.keys) == keys


async def test_the_texts_that_a_follower_gets_are_those_of_the_entries_byte_for_byte(journal: Journal) -> None:
    await journal.append(batch_of([reading("a", text) for text in TEXTS] + [order(), deletion(), reading("é\u2028")]))
    await journal.append(batch_of([reading("another program may write", b"[1,\n2]"), order()]))
    for since in (0, 1, 7):
        async for committed in followed(journal, since, len(TEXTS) + 5):
            if committed.texts is not None:
                assert list(committed.texts) == plain(committed.entries)


# What only a durable journal promises.


async def test_a_restart_keeps_everything_and_goes_on_counting(reopened: Open, durable_kind: str) -> None:
    first_stores = await reopened()
    first = first_stores.journal
    batch: list[Entry] = [reading("a"), order("b"), reading("c", b'{"x":"y"}'), deletion("a"), reading("a", b"2")]
    batch += [reading("d"), deletion("d")]
    await first.append(batch_of(batch))
    before = await first.snapshot()
    await first_stores.close()

    second_stores = await reopened()
    second = second_stores.journal
    assert second.epoch == first.epoch
    epoch = second.lineage.epoch
    assert second.lineage.why_not(Position(first.lineage.epoch, 7), 7) == ""
    if durable_kind == "jetstream":
        assert epoch == first.lineage.epoch, "the run is the log's, not the server's: others went on meanwhile"
    else:
        assert epoch != first.lineage.epoch
        assert second.lineage.why_not(Position(first.lineage.epoch, 8), 9) == "epoch", "the first run never came so far"
    for entry in batch:
        entry.epoch = epoch
    assert plain(await second.read(0, 100)) == plain(batch)
    assert is_same(await second.snapshot(), Snapshot(epoch, before.seq, before.twins))
    assert (await second.append(batch_of([reading()]))).seqs == range(8, 9)
    assert [entry.seq for entry in await second.read(0, 100)] == list(range(1, 9)), "the newest as well"
    assert [entry.seq for entry in await follow(second, 0, 8)] == list(range(1, 9))
    await second_stores.close()


# The way to them.


@pytest.mark.parametrize("url", ["", "memory:x", "sqlite", "sqlite:", "postgres:x", "twincast.db"])
async def test_an_unknown_url_is_refused_with_those_that_are_known(url: str) -> None:
    with pytest.raises(JournalUnusable, match="`sqlite:PATH`, `memory:` or `nats://"):
        await open_stores(url, memory_max_bytes=0)


@pytest.mark.parametrize("path", ["/tmp/x/twincast.db", "./twincast.db", "twincast.db"])
async def test_the_path_of_a_file_is_answered_with_the_url_to_write(path: str) -> None:
    with pytest.raises(JournalUnusable, match=f"write sqlite:{path}"):
        await open_stores(path, memory_max_bytes=0)
    with pytest.raises(JournalUnusable, match=f"write sqlite:{path}"):
        required_file_of(path)
    with pytest.raises(JournalUnusable, match=r"'memory:' has no file$"):
        required_file_of("memory:")


async def test_the_audit_trail_is_read_newest_first_from_any_place(stores: Stores) -> None:
    journal, access = stores.journal, stores.access
    assert await access.audit(10) == []
    batch: list[Entry] = [reading(), *(order(f"t{number}") for number in range(5))]
    await journal.append(batch_of(batch, actors=dict.fromkeys(range(1, 6), Actor("key:1", "192.0.2.1"))))
    records = await access.audit(10)
    assert [(record.target, record.seq) for _, record in records] == [(f"t{n}", n + 2) for n in (4, 3, 2, 1, 0)]
    assert (records[0][1].who, records[0][1].address, records[0][1].action) == ("key:1", "192.0.2.1", "command")
    assert await access.audit(2) == records[:2]
    assert await access.audit(2, before=records[1][0]) == records[2:4]
    assert await access.audit(9, before=records[3][0]) == records[4:]
    assert await access.audit(9, before=records[4][0]) == []


async def test_a_deletion_leaves_a_record_in_the_audit_trail(stores: Stores, time_of: Callable[[Batch], str]) -> None:
    journal, access = stores.journal, stores.access
    await journal.append(batch_of([reading("lab/fan"), order("lab/fan")]))
    batch = batch_of([order("x"), deletion("lab/fan")], actors={1: Actor("key:1", "192.0.2.1")})
    await journal.append(batch)
    [(_, record)] = await access.audit(10)
    assert (record.action, record.target, record.detail, record.seq) == ("delete", "lab/fan", "", 4)
    assert (record.who, record.address, record.at_utc) == ("key:1", "192.0.2.1", time_of(batch))


async def test_of_a_history_that_was_deleted_nothing_comes_back_but_places(stores: Stores) -> None:
    journal, history = stores.journal, stores.history
    value = b'"salty-secret"'
    await journal.append(batch_of([reading("b", b"1"), reading("a", value), order("a")]))
    await journal.append(batch_of([reading("a", value), reading("b", b"2")]))
    placed = await journal.append(batch_of([reading("a", value), erasure("a"), reading("a", b"3")]))
    assert placed.seqs == range(6, 9)
    for since in range(8):
        entries = await journal.read(since, 100)
        assert [entry.seq for entry in entries] == [*range(since + 1, 9)]
        assert not any(b"salty" in bytes(entry.payload) for entry in entries)
    everything = await journal.read(0, 100)
    assert [entry.kind for entry in everything] == [
        *("data_update", "erased", "erased", "erased", "data_update", "erased", "deleted", "data_update")
    ]
    assert all(entry.timestamp_utc for entry in everything)
    assert plain(await follow(journal, 0, 8)) == plain(everything)
    async for committed in followed(journal, 0, 8):
        assert committed.has_late == any(isinstance(entry, Erased) for entry in committed.entries)
    snapshot = await journal.snapshot()
    assert {name: bytes(twin.value) for name, twin in snapshot.twins.items()} == {"a": b"3", "b": b"2"}
    state = State(Snapshot("e", 0, {}))
    state.apply_all(everything)
    assert (state.seq, set(state.twins), state.erasures) == (8, {"a", "b"}, 1)
    all_names = Names(pattern_set(frozenset({"*"})), pattern_set(frozenset({"*"})))
    assert await history.names(all_names) == ["a", "b"]
    assert set((await history.state_at(5, all_names)).twins) == {"b"}
    query = EntriesQuery(("a",), KINDS, -(1 << 60), 1 << 60, 0, 8, is_descending=False)
    (page,), _ = await history.entries(query)
    assert plain(page.entries) == plain(everything[6:])


async def test_a_history_is_erased_of_a_device_that_was_deleted_before(stores: Stores) -> None:
    journal = stores.journal
    await journal.append(batch_of([reading("a", b"1"), deletion("a"), reading("b")]))
    await journal.append(batch_of([erasure("a"), erasure("b")]))
    assert [entry.kind for entry in await journal.read(0, 10)] == ["erased"] * 3 + ["deleted"] * 2
    assert (await journal.snapshot()).twins == {}
