"""The rules of a shared log: any two folds of the same messages are equal, wherever each began."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw
from msgspec.structs import replace

from tests.fakes import NOW_UTC
from twincast.core import idempotency
from twincast.core.audit import Actor, CommandOrigin
from twincast.core.batch import Batch
from twincast.core.idempotency import IdempotencyKey, IdempotencyRecord
from twincast.core.lateness import NEVER, decide
from twincast.core.lineage import Generation
from twincast.core.model import Control, DataUpdate, Deleted, Entry, Erased, Late
from twincast.core.producers import NumberedLine, ProducerMark
from twincast.core.times import stored_form
from twincast.errors import JournalUnusable
from twincast.journal.jetstream import fold as rules
from twincast.journal.jetstream.commit import (
    Carried,
    Commit,
    Fork,
    Run,
    commit_of,
    commit_of_carried,
    commit_of_moved,
    decode_commit,
    encode_commit,
)
from twincast.journal.jetstream.fold import Beginning, Fold, Folded, nanoseconds_of
from twincast.wire.messages import encode

SECOND_NS = 10**9


def beginning() -> Beginning:
    return Beginning("lab", [Generation("one", 0)])


def again(fold: Fold) -> Fold:
    """Return a fold that begins where another one is, with what a copy keeps of it."""
    return Fold(
        Beginning(
            *("lab", fold.generations, fold.seq, fold.place, tuple(fold.writers), tuple(fold.keys), tuple(fold.marks)),
            newest=fold.newest.items(),
            deletions=fold.deletions.items(),
        )
    )


def reading(
    device_id: str = "a", value: bytes = b"1", source: Any = "rest", *, measured_s: float | None = None
) -> DataUpdate:
    """Return a reading; `measured_s` is when it claims to have been measured, in seconds since 1970."""
    measured_at_utc = UNSET if measured_s is None else at(measured_s)
    return DataUpdate(device_id, Raw(value), NOW_UTC, source, measured_at_utc=measured_at_utc)


def at(seconds: float) -> str:
    return stored_form(datetime.fromtimestamp(0, UTC) + timedelta(seconds=seconds))


def message(entries: Sequence[Entry], *, by: str = "w", n: int = 1, **attached: Any) -> bytes:
    """Return a commit with one submission, to which something is attached."""
    return encode_commit(commit_of(batch(entries, **attached), by, n, server="here", after=0))


def batch(
    entries: Sequence[Entry],
    *,
    key: tuple[str, str] | None = None,
    actor: Actor | None = None,
    line: tuple[str, str, int] | None = None,
) -> Batch:
    made = Batch()
    made.add_all(
        entries,
        0,
        lambda error, seq: None,
        key=None if key is None else IdempotencyKey(*key, lambda record: None),
        actor=actor,
        line=None if line is None else NumberedLine(line[0], line[1], line[2], lambda mark: None),
    )
    return made


def take(fold: Fold, data: bytes, *, stamp_ns: int = SECOND_NS) -> Folded:
    return fold.take(fold.place.stream_seq + 1, stamp_ns, data, decode_commit(data))


def stored(folded: Folded) -> list[Entry]:
    return [] if folded.committed is None else list(folded.committed.entries)


def test_entries_get_their_positions_epoch_and_time_where_they_are_folded() -> None:
    fold = Fold(beginning())
    entries = stored(take(fold, message([reading(), Control("fan", "on", Raw(b"{}"), NOW_UTC, "websocket")])))
    assert [(entry.seq, entry.epoch) for entry in entries] == [(1, "lab-one"), (2, "lab-one")]
    assert {entry.timestamp_utc for entry in entries} == {"1970-01-01T00:00:01.000000+00:00"}
    assert [entry.seq for entry in stored(take(fold, message([Deleted("a", NOW_UTC, "rest")], n=2)))] == [3]


def test_time_never_goes_back() -> None:
    fold = Fold(beginning())
    times = [stored(take(fold, message([reading()], n=n), stamp_ns=at))[0].timestamp_utc for n, at in ((1, 9), (2, 5))]
    assert times[0] == times[1]


def test_a_message_that_does_not_come_next_is_refused() -> None:
    fold = Fold(beginning())
    data = message([reading()])
    for stream_seq in (0, 2):
        with pytest.raises(ValueError, match="goes on at 1"):
            fold.take(stream_seq, 1, data, decode_commit(data))


def test_a_copy_of_a_commit_and_one_that_was_given_up_store_nothing() -> None:
    fold = Fold(beginning())
    take(fold, message([reading()], n=2))
    for n in (2, 1):
        assert not stored(take(fold, message([reading()], n=n)))
    assert stored(take(fold, message([reading()], by="other", n=1)))
    assert fold.seq == 2


def test_only_the_writers_that_wrote_last_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "WRITERS_MAX", 2)
    fold = Fold(beginning())
    for by in ("a", "b", "a", "c"):
        take(fold, message([reading()], by=by, n=fold.place.stream_seq + 1))
    assert [writer.by for writer in fold.writers] == ["a", "c"]


def test_a_known_key_leaves_its_submission_out_and_the_rest_has_no_gap() -> None:
    fold = Fold(beginning())
    first = take(fold, message([reading("a"), reading("b")], key=("k", "digest")))
    assert first.committed is not None
    assert first.committed.keys == (IdempotencyRecord("k", 1, 2, "digest"),)
    mixed = batch([reading("c")])
    mixed.add_all([reading("a"), reading("b")], 0, lambda *_: None, key=IdempotencyKey("k", "other", lambda _: None))
    mixed.add_all([reading("d")], 0, lambda *_: None, key=IdempotencyKey("new", "digest", lambda _: None))
    folded = take(fold, encode_commit(commit_of(mixed, "v", 1, server="", after=0)))
    assert [(entry.subject, entry.seq) for entry in stored(folded)] == [("c", 3), ("d", 4)]
    assert folded.known == [IdempotencyRecord("k", 1, 2, "digest")]
    assert folded.committed is not None
    assert folded.committed.keys == (IdempotencyRecord("new", 4, 4, "digest"),)


def test_a_key_counts_while_its_first_entry_is_among_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "WINDOW_ENTRIES", 3)
    fold = Fold(beginning())
    take(fold, message([reading()] * 2, key=("k", "d")))
    take(fold, message([reading()], n=2))
    assert not stored(take(fold, message([reading()] * 2, n=3, key=("k", "d"))))
    take(fold, message([reading()], n=4))
    assert fold.keys == ()
    assert stored(take(fold, message([reading()] * 2, n=5, key=("k", "d"))))


def test_a_line_is_stored_once_whichever_server_it_comes_by() -> None:
    fold = Fold(beginning())
    take(fold, message([reading()], by="a", line=("me", "p", 3)))
    folded = take(fold, message([reading()], by="b", line=("me", "p", 3)))
    assert not stored(folded)
    assert folded.passed == {("me", "p", 3): ProducerMark("me", "p", 3, 1, 0b11)}
    assert not stored(take(fold, message([reading()], by="b", n=2, line=("me", "p", 2))))
    assert stored(take(fold, message([reading()], by="b", n=3, line=("me", "p", 4))))
    assert stored(take(fold, message([reading()], by="b", n=4, line=("you", "p", 3))))
    assert [(mark.identity, mark.line, mark.seq) for mark in fold.marks] == [("me", 4, 2), ("you", 3, 3)]


def test_the_actor_of_each_entry_is_known_by_its_position() -> None:
    fold = Fold(beginning())
    take(fold, message([reading()]))
    command = Control("fan", "on", Raw(b"{}"), NOW_UTC, "rest")
    folded = take(fold, message([command], n=2, actor=Actor("key:1", "::1")))
    assert [tuple(origin) for origin in folded.origins] == [(2, "key:1", "::1", "here")]


def test_a_fork_begins_another_generation_once() -> None:
    fold = Fold(beginning())
    take(fold, message([reading()]))
    fork = encode_commit(Commit("x", 1, fork=Fork("one", "two")))
    assert take(fold, fork).generation == Generation("two", 1)
    assert take(fold, encode_commit(Commit("y", 1, fork=Fork("one", "three")))).generation is None
    assert stored(take(fold, message([reading()], n=2)))[0].epoch == "lab-two"


def test_own_entries_get_what_new_ones_would_get() -> None:
    one, other = Fold(beginning()), Fold(beginning())
    made = batch([reading("a"), reading("b", b'"x"')], key=("k", "d"))
    data = encode_commit(commit_of(made, "w", 1, server="", after=0))
    own = one.take(1, 7, data, decode_commit(data), made.entries)
    assert own == other.take(1, 7, data, decode_commit(data))
    assert stored(own)[0] is made.entries[0]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b'{"by":"w","n":1,"fold":4}',
        b'{"by":"w","n":1,"fold":2,"runs":[{"kind":"deleted","source":"rest","subjects":["a"],"details":["history"]}]}',
        b'{"by":"w","n":1,"fold":3,"runs":[{"kind":"deleted","source":"rest","subjects":["a","b"],"details":["history"]}]}',
        b'{"by":"w","n":1,"fold":2,"runs":[{"kind":"erased","source":"application","subjects":[""]}]}',
        b'{"by":"w","n":1,"runs":[{"kind":"data_update","source":"rest","subjects":["a"],"payloads":[1],"claims":[""]}]}',
        b'{"by":"w","n":1,"fold":2,"runs":[{"kind":"late","source":"rest","subjects":["a"],"payloads":[1]}]}',
        b'{"by":"w","n":1,"runs":[{"kind":"unheard","source":"rest","subjects":["a"]}]}',
        b'{"by":"w","n":1,"runs":[{"kind":"data_update","source":"rest","subjects":["a"]}]}',
        b'{"by":"w","n":1,"runs":[{"kind":"deleted","source":"rest","subjects":["a"],"payloads":[1]}]}',
        b'{"by":"w","n":1,"attached":[{"first":0,"last":0}]}',
        b'{"by":"w","n":1,"runs":' + b"[" * 100_000,
    ],
)
def test_what_this_version_does_not_know_stops_it(data: bytes) -> None:
    with pytest.raises(JournalUnusable, match="newer"):
        decode_commit(data)


def test_a_value_does_not_keep_its_whole_message() -> None:
    data = message([reading(value=b'"' + b"x" * 100 + b'"')])
    before = sys.getrefcount(data)
    (entry,) = stored(take(Fold(beginning()), data))
    assert len(entry.payload) == 102
    assert sys.getrefcount(data) == before


def test_a_commit_is_no_longer_than_the_requests_that_it_came_in() -> None:
    entries = [reading(f"d{n}", b"21.5") for n in range(1_000)]
    request = sum(len(b'{"device_id":"%b","value":%b},' % (e.subject.encode(), bytes(e.payload))) for e in entries)
    assert len(message(entries)) < request


# Measured time


def kinds(folded: Folded) -> list[str]:
    return [entry.kind for entry in stored(folded)]


def test_a_reading_that_was_measured_before_the_newest_is_late() -> None:
    fold = Fold(beginning())
    take(fold, message([reading(measured_s=9)]), stamp_ns=10 * SECOND_NS)
    folded = take(fold, message([reading(measured_s=8), reading(), reading(measured_s=10.5)], n=2), stamp_ns=11 * 10**9)
    assert kinds(folded) == ["late", "data_update", "late"]
    assert folded.committed is not None and folded.committed.has_late
    assert [(entry.seq, entry.claim) for entry in stored(folded)] == [(2, at(8)), (3, ""), (4, at(10.5))]
    assert fold.newest == {"a": at(11)}


def test_a_claim_is_believed_or_not_by_the_time_of_the_stream() -> None:
    fold = Fold(beginning())
    (entry,) = stored(take(fold, message([reading(measured_s=100)]), stamp_ns=39 * SECOND_NS))
    assert isinstance(entry, DataUpdate) and entry.clock == "off" and fold.newest == {"a": at(39)}
    (entry,) = stored(take(fold, message([reading(measured_s=100)], n=2), stamp_ns=40 * SECOND_NS))
    assert isinstance(entry, DataUpdate) and entry.clock is UNSET and fold.newest == {"a": at(100)}


def test_a_deletion_is_remembered_from_the_version_on_that_asks_for_it() -> None:
    deletion = message([Deleted("a", NOW_UTC, "rest")], n=2)
    assert decode_commit(deletion).fold == 2
    before = decode_commit(deletion)
    before.fold = 1
    for data, kind in ((deletion, "late"), (encode_commit(before), "data_update")):
        fold = Fold(beginning())
        take(fold, message([reading()]))
        folded = take(fold, data, stamp_ns=9 * SECOND_NS)
        assert [each.device_id for each in folded.deleted] == list(fold.deletions)
        assert kinds(take(again(fold), message([reading(measured_s=8)], n=3), stamp_ns=10 * SECOND_NS)) == [kind]
        assert kinds(take(again(fold), message([reading(measured_s=9)], n=3), stamp_ns=10 * SECOND_NS)) == [
            "data_update"
        ]


def test_of_the_devices_that_were_deleted_last_it_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "DELETIONS_MAX", 2)
    fold = Fold(beginning())
    for n, name in enumerate("abcad", 1):
        take(fold, message([Deleted(name, NOW_UTC, "rest")], n=n))
    assert list(fold.deletions) == ["a", "d"]


def test_what_claims_nothing_is_written_as_the_first_version_reads_it() -> None:
    plain = decode_commit(message([reading(), Control("fan", "on", Raw(b"{}"), NOW_UTC, "rest")]))
    assert plain.fold == 1 and b"fold" not in encode_commit(plain) and b"claims" not in encode_commit(plain)
    assert decode_commit(message([reading(measured_s=1), reading()])).fold == 2


def test_a_deletion_of_a_history_is_a_deletion_that_older_versions_do_not_read() -> None:
    erasing = message([reading(), Deleted("a", NOW_UTC, "rest", scope="history")], n=2)
    assert decode_commit(erasing).fold == 3
    fold = Fold(beginning())
    folded = take(fold, erasing, stamp_ns=9 * SECOND_NS)
    assert [(entry.kind, entry.detail) for entry in stored(folded)] == [("data_update", ""), ("deleted", "history")]
    assert [each.erases for each in folded.deleted] == [True]
    assert fold.deletions == {"a": at(9)} and fold.newest == {}
    plain = decode_commit(message([Deleted("a", NOW_UTC, "rest")]))
    assert plain.fold == 2 and not plain.runs[0].details


def test_places_of_erased_entries_come_with_a_moved_log() -> None:
    moved: list[Entry] = [reading(), Erased(NOW_UTC), reading()]
    for seq, entry in enumerate(moved, 1):
        entry.seq = seq
    commit = commit_of_moved(moved, [], "w", 1)
    assert decode_commit(encode_commit(commit)).fold == 3
    folded = take(Fold(beginning()), encode_commit(commit))
    assert [(entry.kind, entry.seq, entry.subject) for entry in stored(folded)] == [
        ("data_update", 1, "a"),
        ("erased", 2, ""),
        ("data_update", 3, "a"),
    ]
    assert folded.committed is not None and folded.committed.has_late, "nobody receives it who does not ask"


def test_servers_that_would_decide_otherwise_have_other_sums() -> None:
    sums = set()
    for measured_s in (8, 10):  # of the newest reading of a copy that is not what the log made
        fold = again(Fold(beginning()))
        fold = Fold(Beginning("lab", [Generation("one", 0)], newest=[("a", at(measured_s))]))
        take(fold, message([reading(measured_s=9)]), stamp_ns=10 * SECOND_NS)
        sums.add(fold.place.crc)
    assert len(sums) == 2


# A log that was moved here

OLD, OLDER = "2026-01-02T00:00:00.000000+00:00", "2026-01-01T00:00:00.000000+00:00"


def from_elsewhere(times: Sequence[str], *, first_seq: int = 1, n: int = 1, origins: Sequence[Any] = ()) -> bytes:
    """Return the commit of moved readings with these times."""
    made = [DataUpdate("a", Raw(b"1"), at_utc, "rest", seq) for seq, at_utc in enumerate(times, first_seq)]
    return encode_commit(commit_of_moved(made, origins, "w", n))


def carrying(carried: Carried, *, n: int = 1) -> bytes:
    return encode_commit(Commit("w", n, carried=carried))


def test_moved_entries_keep_their_times_and_time_goes_on_behind_the_newest() -> None:
    fold = Fold(beginning())
    moved = stored(take(fold, from_elsewhere([OLD, OLD, OLDER])))
    assert [(entry.seq, entry.timestamp_utc) for entry in moved] == [(1, OLD), (2, OLD), (3, OLDER)]
    assert [entry.timestamp_utc for entry in stored(take(again(fold), message([reading()], n=2)))] == [OLD]
    later_ns = nanoseconds_of("2026-03-01T00:00:00.000000+00:00")
    (later,) = stored(take(fold, message([reading()], n=2), stamp_ns=later_ns))
    assert later.timestamp_utc > OLD


def test_moved_entries_are_stored_whatever_is_known_for_it_was_decided_where_they_were_written() -> None:
    fold = Fold(beginning())
    take(fold, carrying(Carried(keys=[("k", 1, 1, "d")], marks=[("me", "p", 9, 1, "0")])))
    data = decode_commit(message([reading()], n=2, key=("k", "d")))
    data.times = [(OLD, 1)]
    assert stored(take(fold, encode_commit(data)))


def test_commands_that_were_moved_keep_who_took_them() -> None:
    command = Control("fan", "on", Raw(b"{}"), OLD, "rest", 7)
    data = encode_commit(commit_of_moved([command], [CommandOrigin(7, "me", "here", "hall-2")], "w", 1))
    assert take(Fold(beginning()), data).origins == [CommandOrigin(1, "me", "here", "hall-2")]


def test_a_trimmed_log_goes_on_where_it_did_and_nothing_else_may_skip_positions() -> None:
    fold = Fold(beginning())
    twin = ("a", Raw(b"1"), OLD, "rest", 40)
    for n in (1, 2):
        assert take(fold, carrying(Carried(41, twins=[twin]), n=n)).carried is not None
    assert [entry.seq for entry in stored(take(fold, from_elsewhere([OLD], first_seq=42, n=3)))] == [42]
    assert take(fold, carrying(Carried(99), n=4)).carried is None
    assert fold.seq == 42


def test_what_is_known_of_moved_entries_counts_from_then_on() -> None:
    fold = Fold(beginning())
    take(fold, from_elsewhere([OLD, OLD]))
    take(fold, carrying(Carried(keys=[("k", 1, 2, "d")], marks=[("me", "p", 9, 2, "5")]), n=2))
    assert fold.keys == (IdempotencyRecord("k", 1, 2, "d"),)
    assert fold.marks == (ProducerMark("me", "p", 9, 2, 0b101),)
    assert not stored(take(fold, message([reading()], n=3, key=("k", "d"))))
    assert not stored(take(fold, message([reading()], n=4, line=("me", "p", 9))))


def test_late_readings_of_a_moved_log_stay_so_and_all_others_stay_on_time() -> None:
    fold = Fold(beginning())
    moved: list[Entry] = [
        DataUpdate("a", Raw(b"1"), OLD, "rest", 1, measured_at_utc=OLD),
        DataUpdate("a", Raw(b"2"), OLD, "rest", 2, measured_at_utc=OLDER),
        Late("a", Raw(b"3"), OLD, "rest", OLD, 3),
        DataUpdate("b", Raw(b"4"), OLDER, "rest", 4, measured_at_utc=OLD, clock="off"),
    ]
    folded = take(fold, encode_commit(commit_of_moved(moved, [], "w", 1)))
    assert encode(stored(folded)) == encode([replace(entry, epoch="lab-one") for entry in moved])
    assert folded.committed is not None and folded.committed.has_late
    assert fold.newest == {"a": OLDER, "b": OLDER}


def test_what_is_carried_says_when_twins_were_measured_and_devices_deleted() -> None:
    fold = Fold(beginning())
    twins = [("a", Raw(b"1"), OLD, "rest", 1), ("b", Raw(b"1"), OLD, "rest", 2), ("c", Raw(b"1"), OLDER, "rest", 3)]
    carried = Carried(5, twins=twins, claims=[("a", OLDER), ("c", OLD)], deletions=[("d", OLD, 4)])
    commit = commit_of_carried(carried, "w", 1)
    assert commit.fold == 2 and commit_of_carried(Carried(5, twins=twins), "w", 1).fold == 1
    take(fold, encode_commit(commit))
    assert fold.newest == {"a": OLDER, "b": OLD, "c": OLDER}
    assert fold.deletions == {"d": OLD}


@pytest.mark.parametrize(
    "wrong",
    [
        b'"times":[["2026-01-02T00:00:00+00:00",2]]',
        b'"times":[["2026-01-02T00:00:00+00:00",0],["2026-01-02T00:00:00+00:00",1]]',
        b'"times":[["2026-01-02T00:00:00",1]]',
        b'"times":[["yesterday",1]]',
        b'"carried":{"since":3,"twins":[["a",1,"t","rest",4]]}',
        b'"carried":{"twins":[["a",1,"t","rest",0]]}',
        b'"carried":{"since":-1}',
        b'"carried":{"since":3,"deletions":[["a","t",4]]}',
        b'"carried":{"since":3,"claims":[["a","yesterday"]]}',
        b'"carried":{"since":9223372036854775808}',
        b'"carried":{"marks":[["me","p",1,1,"-1"]]}',
        b'"carried":{"marks":[["me","p",1,1,"x"]]}',
        b'"carried":{"keys":[["k",1,9223372036854775808,"d"]]}',
    ],
)
def test_what_contradicts_itself_is_refused(wrong: bytes) -> None:
    entry = b'"runs":[{"kind":"data_update","source":"rest","subjects":["a"],"payloads":[1]}]'
    decode_commit(b'{"by":"w","n":1,%b,"times":[["2026-01-02T00:00:00+00:00",1]],"carried":{"since":3}}' % entry)
    with pytest.raises(JournalUnusable):
        decode_commit(b'{"by":"w","n":1,%b,%b}' % (entry, wrong))


# Any two folds

names = st.sampled_from(["a", "b", "lab/t", "日", "%"])
values = st.sampled_from([b"1", b'"x"', b"[1,{}]", b"null"])
sources = st.sampled_from(["rest", "websocket", "application"])
entries = st.one_of(
    st.builds(lambda d, v, s: DataUpdate(d, Raw(v), NOW_UTC, s), names, values, sources),
    st.builds(lambda d, v, m: reading(d, v, measured_s=m), names, values, st.sampled_from([0, 1e-9, 4e-9, 60, 61])),
    st.builds(lambda d, s: Control(d, "on", Raw(b'{"x":1}'), NOW_UTC, s), names, sources),
    st.builds(lambda d, s: Deleted(d, NOW_UTC, s), names, sources),
)
attachments: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({}),
    st.builds(lambda k, d: {"key": (k, d)}, st.sampled_from("klm"), st.sampled_from("de")),
    st.builds(lambda p, n: {"line": ("me", p, n)}, st.sampled_from("pq"), st.integers(1, 9)),
    st.just({"actor": Actor("key:1", "::1")}),
)
submissions: st.SearchStrategy[list[tuple[list[Entry], dict[str, Any]]]] = st.lists(
    st.tuples(st.lists(entries, min_size=1, max_size=3), attachments), min_size=1, max_size=4
)


def commit(by: str, n: int, parts: Sequence[tuple[Sequence[Entry], dict[str, Any]]]) -> bytes:
    made, keys, lines = Batch(), set[str](), dict[str, int]()
    for each, attached in parts:
        if (key := attached.get("key")) is not None:
            if key[0] in keys:  # a server has each pending key once
                continue
            keys.add(key[0])
        if (line := attached.get("line")) is not None:
            if line[2] <= lines.get(line[1], 0):  # and lines in their order
                continue
            lines[line[1]] = line[2]
        whole = batch(each, **attached)
        for _, key_of, actor, numbered in whole.attached():
            made.add_all(each, 0, lambda *_: None, key=key_of, actor=actor, line=numbered)
        if not attached:
            made.add_all(each, 0, lambda *_: None)
    return encode_commit(commit_of(made, by, n, server=by, after=0))


logs = st.lists(
    st.tuples(
        st.one_of(
            st.builds(commit, st.sampled_from("vw"), st.integers(1, 6), submissions),
            st.builds(
                lambda times, n: from_elsewhere(times, n=n),
                st.lists(st.sampled_from([OLD, OLDER]), min_size=1, max_size=4),
                st.integers(1, 6),
            ),
            st.builds(
                lambda since, n: carrying(Carried(since, keys=[("k", 1, 1, "d")], marks=[("me", "p", 5, 1, "2")]), n=n),
                st.integers(0, 3),
                st.integers(1, 6),
            ),
        ),
        st.integers(0, 5),
    ),
    max_size=12,
)


@given(logs, st.integers(0, 12))
def test_any_two_folds_of_the_same_messages_are_equal(log: list[tuple[bytes, int]], starts_at: int) -> None:
    one = Fold(beginning())
    other: Fold | None = None
    for index, (data, stamp_ns) in enumerate(log):
        if index == starts_at:
            other = again(one)
        folded = take(one, data, stamp_ns=stamp_ns)
        if other is not None:
            assert encode(stored(take(other, data, stamp_ns=stamp_ns))) == encode(stored(folded))
            assert (other.place, other.seq, other.writers) == (one.place, one.seq, one.writers)
            assert (other.keys, other.marks, other.generation) == (one.keys, one.marks, one.generation)
            assert (other.newest, list(other.deletions.items())) == (one.newest, list(one.deletions.items()))
        seqs = [entry.seq for entry in stored(folded)]
        assert seqs == list(range(one.seq - len(seqs) + 1, one.seq + 1))


@given(submissions)
def test_entries_come_back_as_they_went(parts: list[tuple[list[Entry], dict[str, Any]]]) -> None:
    data = commit("w", 1, [(each, {}) for each, _ in parts])
    sent = [entry for each, _ in parts for entry in each]
    back = stored(take(Fold(beginning()), data))
    assert [(e.subject, bytes(e.payload), e.detail, e.source, e.claim) for e in back] == [
        (e.subject, bytes(e.payload), e.detail, e.source, e.claim) for e in sent
    ]
    for entry in sent:
        entry.timestamp_utc = at(1)
    decide(sent, lambda _: NEVER)
    assert [type(e) for e in back] == [type(e) for e in sent]


def test_a_run_has_columns() -> None:
    made = commit_of(batch([reading("a"), reading("b", b"2")]), "w", 1, server="", after=0)
    assert [(run.kind, run.subjects, len(run.payloads)) for run in made.runs] == [("data_update", ["a", "b"], 2)]
    assert isinstance(made.runs[0], Run)
