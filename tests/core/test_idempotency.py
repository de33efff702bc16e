"""Keys under which an update is stored once."""

import gc
import re
import weakref
from collections.abc import Callable, Iterator
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from twincast.core import idempotency
from twincast.core.idempotency import (
    IdempotencyIndex,
    IdempotencyKey,
    IdempotencyRecord,
    KeyWindow,
    PendingKey,
    digest_of,
    key_of_request,
    key_of_update,
)
from twincast.core.model import Control, DataUpdate, Entry
from twincast.errors import KeyReused, TwincastError

HEAD = 5


class Asked:
    """What a submission under a key is told."""

    def __init__(self, key: str = "k", digest: str = "07") -> None:
        self.answers: list[tuple[TwincastError | None, int]] = []
        self.records: list[IdempotencyRecord] = []
        self.key = IdempotencyKey(key, digest, self.records.append)

    def done(self, error: TwincastError | None, last_seq: int) -> None:
        self.answers.append((error, last_seq))


@pytest.fixture
def without_collector() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.usefixtures("without_collector")
@pytest.mark.parametrize(
    "end",
    [
        lambda pending: pending.settle(None, 1),
        lambda pending: pending.settle(TwincastError("no"), 0),
        lambda pending: pending.again(IdempotencyRecord("k", 3, 5, "07")),
    ],
    ids=["stored", "refused", "stored by another"],
)
def test_a_key_that_is_no_longer_pending_keeps_nothing_of_its_sender(end: Callable[[PendingKey], None]) -> None:
    known, sender = IdempotencyIndex(()), Asked()
    pending = known.admit(sender.key, 1, sender.done, HEAD)
    assert pending is not None
    end(pending)
    gone = weakref.ref(sender)
    del pending, sender
    assert gone() is None


def test_what_a_restart_finds_in_the_journal_is_known() -> None:
    known = IdempotencyIndex([IdempotencyRecord("k", 3, 5, "07")])
    again, other = Asked(), Asked(digest="08")
    assert known.admit(again.key, 3, again.done, HEAD) is None
    assert again.records == [IdempotencyRecord("k", 3, 5, "07")]
    with pytest.raises(KeyReused):
        known.admit(other.key, 3, other.done, HEAD)


def test_a_key_whose_submission_failed_may_be_used_again() -> None:
    known, first, second = IdempotencyIndex(()), Asked(), Asked(digest="08")
    pending = known.admit(first.key, 1, first.done, HEAD)
    assert pending is not None
    pending.settle(TwincastError("no"), 0)
    assert known.admit(second.key, 1, second.done, HEAD) is not None


def test_a_key_is_known_once_the_log_reports_it_whoever_wrote_it() -> None:
    known, elsewhere = IdempotencyIndex(()), IdempotencyRecord("k", 3, 5, "07")
    known.learn([elsewhere])
    again, other = Asked(), Asked(digest="08")
    assert known.admit(again.key, 3, again.done, HEAD) is None
    assert again.records == [elsewhere]
    with pytest.raises(KeyReused):
        known.admit(other.key, 3, other.done, HEAD)


def test_a_key_that_the_journal_has_from_another_writer_is_answered_with_that_to_all_who_wait() -> None:
    known, first, second = IdempotencyIndex(()), Asked(), Asked()
    pending = known.admit(first.key, 3, first.done, HEAD)
    assert pending is not None and known.admit(second.key, 3, second.done, HEAD) is None
    elsewhere = IdempotencyRecord("k", 3, 5, "07")
    pending.key.again(elsewhere)
    assert (first.records, second.records) == ([elsewhere], [elsewhere])
    assert first.answers == second.answers == []


def test_a_key_under_way_with_other_content_is_refused() -> None:
    known, first, second = IdempotencyIndex(()), Asked(), Asked(digest="08")
    assert known.admit(first.key, 1, first.done, HEAD)
    with pytest.raises(KeyReused):
        known.admit(second.key, 1, second.done, HEAD)


def store(known: IdempotencyIndex, key: str, seq: int) -> None:
    asked = Asked(key)
    pending = known.admit(asked.key, 1, asked.done, seq - 1)
    assert pending is not None, f"{key} is still known"
    known.learn([IdempotencyRecord(key, seq, seq, "07")])
    pending.settle(None, seq)


def test_so_many_keys_are_remembered_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "KEYS_MAX", 3)
    known = IdempotencyIndex(())
    for seq in range(1, 6):
        store(known, f"k{seq}", seq)
    for key, is_known in (("k2", False), ("k3", True), ("k5", True)):
        asked = Asked(key)
        assert (known.admit(asked.key, 1, asked.done, HEAD) is None) is is_known, key


def test_a_key_counts_as_long_as_its_first_entry_is_among_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "WINDOW_ENTRIES", 10)
    known, asked = IdempotencyIndex(()), Asked("old")
    known.learn([IdempotencyRecord("old", 1, 3, "07")])
    assert known.admit(asked.key, 3, asked.done, 10) is None
    assert known.admit(asked.key, 3, asked.done, 11) is not None, "though no other key was stored meanwhile"


steps = st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 3), st.integers(1, 3)), max_size=40)


@given(steps, st.sets(st.integers(0, 39)))
def test_what_was_started_anew_answers_as_what_was_not(steps: list[tuple[str, int, int]], starts: set[int]) -> None:
    """A journal keeps each key that was ever stored, and gives at a start those that count then, as SqliteFile does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(idempotency, "WINDOW_ENTRIES", 12)
        patch.setattr(idempotency, "KEYS_MAX", 4)
        log, head_seq = list[IdempotencyRecord](), 0
        stayed, restarted = KeyWindow(), KeyWindow()
        for number, (key, others, count) in enumerate(steps):
            head_seq += others  # entries without a key
            if number in starts:
                restarted = KeyWindow([record for record in log if record.first_seq > head_seq - 12][-4:])
            newest = list({record.key: record for record in log}.values())
            newest = sorted(newest, key=lambda record: record.first_seq)[-4:]
            by_rule = {record.key: record for record in newest if record.first_seq > head_seq - 12}
            for name in "abcdef":
                assert stayed.get(name, head_seq) == restarted.get(name, head_seq) == by_rule.get(name), name
            assert stayed.counting(head_seq) == restarted.counting(head_seq) == list(by_rule.values())
            if key not in by_rule:
                log.append(IdempotencyRecord(key, head_seq + 1, head_seq + count, "07"))
                head_seq += count
                stayed.learn(log[-1:])
                restarted.learn(log[-1:])


def test_keys_of_different_origin_never_meet() -> None:
    lamp, door = (DataUpdate(name, Raw(b"1"), "", "rest") for name in ("lamp", "door"))
    control = Control("lamp", "on", Raw(b"{}"), "", "rest")
    keys = [
        key_of_update(lamp, "u"),
        key_of_update(door, "u"),
        key_of_update(control, "u"),
        key_of_request("u"),
    ]
    assert len(set(keys)) == 4


def test_a_digest_is_of_what_is_said_not_of_when() -> None:
    def update(name: str = "lamp", value: bytes = b"1", at: str = "") -> DataUpdate:
        return DataUpdate(name, Raw(value), at, "rest", 5 if at else 0)

    assert digest_of([update()]) == digest_of([update(at="now")])
    digests = [digest_of(entries) for entries in ([update()], [update(value=b"2")], [update("door")], [update()] * 2)]
    orders = [digest_of([Control("lamp", command, Raw(b"{}"), "", "rest")]) for command in ("on", "off")]
    assert len({*digests, *orders}) == 6


def test_contents_with_the_same_checksum_are_not_the_same() -> None:
    one, other = "plumless", "buckeroo"
    assert crc32(one.encode()) == crc32(other.encode()), "as anybody can find them"
    digests = {digest_of([DataUpdate("lamp", Raw(f'"{text}"'.encode()), "", "rest")]) for text in (one, other)}
    assert len(digests) == 2


texts = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=3)
entries = st.one_of(
    st.builds(lambda name, value: DataUpdate(name, Raw(b"%d" % value), "", "rest"), texts, st.integers(0, 99)),
    st.builds(
        lambda name, word, n: Control(name, word, Raw(b'{"n":%d}' % n), "", "rest"), texts, texts, st.integers(0)
    ),
)


@given(st.lists(entries, max_size=4), st.lists(entries, max_size=4))
def test_no_two_submissions_that_differ_run_together_to_one_digest(one: list[Entry], other: list[Entry]) -> None:
    """Such as two readings whose names and values, joined, are those of a third."""
    assert (digest_of(one) == digest_of(other)) == (one == other)
    assert re.fullmatch(r"[0-9a-f]{32}", digest_of(one))


def test_a_key_that_is_longer_than_the_window_counts_no_more_once_it_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "WINDOW_ENTRIES", 10)
    window = idempotency.KeyWindow([IdempotencyRecord("k", 1, 20, "d")])
    assert window.get("k", 20) is None
