"""What one client has not taken yet, against a model that keeps everything and sorts it."""

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec import Raw

from twincast.core.cast import Cast
from twincast.core.model import Control, DataUpdate, Entry, Snapshot, Twin
from twincast.core.outbox import Outbox
from twincast.core.protocol import encode
from twincast.core.state import State
from twincast.errors import FellBehind

PLENTY_BYTES = 1 << 40


def cast_of(*entries: Entry) -> Cast:
    return Cast([encode(entry) for entry in entries], entries)


def update(seq: int, device_id: str = "a") -> DataUpdate:
    return DataUpdate(device_id, Raw(b"%d" % (seq * 100)), f"time {seq}", "rest", seq)


def control(seq: int, command: str = "on") -> Control:
    return Control("a", command, Raw(b"{}"), f"time {seq}", "rest", seq)


class Followed:
    """A state and an outbox that were given the same casts."""

    def __init__(self, max_bytes: int = PLENTY_BYTES) -> None:
        self.state = State(Snapshot("e", 0, {}))
        self.outbox = Outbox(max_bytes)

    def add(self, *entries: Entry) -> None:
        for entry in entries:
            self.state.apply(entry)
        self.outbox.add(cast_of(*entries), self.state.seq)

    def answer(self, message: bytes) -> None:
        self.outbox.add(Cast((message,)), self.state.seq)

    def take(self, max_bytes: int = PLENTY_BYTES) -> list[Any]:
        return [json.loads(message) for message in self.outbox.take(self.state.twins, max_bytes)]


def test_a_client_that_fell_behind_gets_only_the_newest_value_of_a_device_and_how_many_it_stands_for() -> None:
    client = Followed()
    client.add(update(1), update(2))
    client.add(update(3))
    [event] = client.take()
    assert (event["value"], event["seq"], event["timestamp_utc"], event["merged"]) == (300, 3, "time 3", 3)


def test_a_single_change_is_the_very_event_that_others_got() -> None:
    client = Followed()
    client.add(update(1))
    assert client.outbox.take(client.state.twins, PLENTY_BYTES) == [encode(update(1))]


def test_commands_are_never_merged() -> None:
    client = Followed()
    client.add(control(1, "on"), control(2, "off"), control(3, "on"))
    assert [(event["command"], event["seq"]) for event in client.take()] == [("on", 1), ("off", 2), ("on", 3)]


def test_everything_is_paid_in_order_of_seq() -> None:
    client = Followed()
    client.add(update(1, "a"), control(2), update(3, "b"), update(4, "a"), control(5))
    assert [event["seq"] for event in client.take()] == [2, 3, 4, 5]


def test_an_answer_follows_the_changes_that_came_before_it() -> None:
    client = Followed()
    client.add(update(1, "a"))
    client.answer(b'"pong"')
    client.add(update(2, "b"))
    first, answer, last = client.take()
    assert (first["seq"], answer, last["seq"]) == (1, "pong", 2)


def test_a_debt_is_paid_in_pieces_and_is_gone_when_it_is_paid() -> None:
    client = Followed()
    client.add(update(1, "a"), update(2, "b"), control(3))
    pieces = []
    while client.outbox:
        pieces.append(client.take(max_bytes=1))
    assert [[event["seq"] for event in piece] for piece in pieces] == [[1], [2], [3]]
    assert client.outbox.size_bytes == 0
    assert client.take() == []


def test_a_device_that_was_paid_counts_anew() -> None:
    client = Followed()
    client.add(update(1), update(2))
    client.take()
    client.add(update(3))
    assert "merged" not in client.take()[0]


def test_changes_of_few_devices_cost_the_same_however_many_they_are() -> None:
    client = Followed()
    client.add(update(1), update(2, "b"))
    before_bytes = client.outbox.size_bytes
    client.add(*(update(seq, "ab"[seq % 2]) for seq in range(3, 2_000)))
    assert client.outbox.size_bytes == before_bytes


def test_a_debt_of_commands_beyond_the_bound_means_that_the_client_fell_behind() -> None:
    client = Followed(max_bytes=10_000)
    with pytest.raises(FellBehind, match="10000 bytes"):
        for seq in range(1, 1_000):
            client.add(control(seq))
    assert client.outbox.size_bytes <= 10_000 + 64 + len(encode(control(1_000)))


def test_a_debt_of_answers_beyond_the_bound_means_that_the_client_fell_behind() -> None:
    client = Followed(max_bytes=1_000)
    client.answer(b"x" * 900)
    with pytest.raises(FellBehind):
        client.answer(b"x" * 100)


def test_a_debt_of_devices_beyond_the_bound_means_that_the_client_fell_behind() -> None:
    client = Followed(max_bytes=6_400)
    with pytest.raises(FellBehind):
        for seq in range(1, 1_000):
            client.add(update(seq, str(seq)))
    assert client.state.seq == 101


@given(st.text(min_size=1), st.integers(min_value=2))
def test_a_merged_event_has_the_fields_of_any_other(device_id: str, merged: int) -> None:
    outbox = Outbox(PLENTY_BYTES)
    entry = DataUpdate(device_id, Raw(b'{"x":"}"}'), "now", "websocket", 9)
    for _ in range(min(merged, 50)):
        outbox.add(cast_of(entry), 9)
    [message] = outbox.take({device_id: Twin(entry.value, "now", 9, "websocket")}, PLENTY_BYTES)
    assert json.loads(message) == json.loads(encode(entry)) | {"merged": min(merged, 50)}


class OutboxAgainstModel(RuleBasedStateMachine):
    """The model keeps every message that is owed, and sorts by what each stands for whenever it pays."""

    def __init__(self) -> None:
        super().__init__()
        self.client = Followed()
        self.counts: Counter[str] = Counter()
        self.messages: list[tuple[int, bytes]] = []

    @rule(devices=st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=5))
    def commit(self, devices: list[str | None]) -> None:
        entries: list[Entry] = []
        for seq, device_id in enumerate(devices, self.client.state.seq + 1):
            entry = control(seq) if device_id is None else update(seq, device_id)
            entries.append(entry)
            if device_id is None:
                self.messages.append((seq, encode(entry)))
            else:
                self.counts[device_id] += 1
        self.client.add(*entries)

    @rule(size=st.integers(0, 200))
    def answer(self, size: int) -> None:
        message = b'"%b"' % (b"p" * size)
        self.messages.append((self.client.state.seq, message))
        self.client.answer(message)

    @precondition(lambda self: self.counts or self.messages)
    @rule(max_bytes=st.integers(1, 1_000))
    def take(self, max_bytes: int) -> None:
        twins = self.client.state.twins
        debt: list[tuple[int, int, str | None, Any]] = [
            (twins[device_id].seq, 0, device_id, self._event(device_id)) for device_id in self.counts
        ]
        debt += [(seq, 1, None, json.loads(message)) for seq, message in self.messages]
        debt.sort(key=lambda owed: owed[:2])
        taken = self.client.outbox.take(twins, max_bytes)
        assert [json.loads(message) for message in taken] == [owed[3] for owed in debt[: len(taken)]]
        assert taken and sum(map(len, taken[:-1])) < max_bytes
        assert len(taken) == len(debt) or sum(map(len, taken)) >= max_bytes
        for _, _, device_id, _ in debt[: len(taken)]:
            if device_id is None:
                self.messages.pop(0)
            else:
                del self.counts[device_id]

    @invariant()
    def it_owes_as_much_as_the_model(self) -> None:
        assert bool(self.client.outbox) == bool(self.counts or self.messages)
        slots = len(self.counts) + len(self.messages)
        assert self.client.outbox.size_bytes == 64 * slots + sum(len(message) for _, message in self.messages)

    def _event(self, device_id: str) -> Any:
        event = json.loads(encode(update(self.client.state.twins[device_id].seq, device_id)))
        return event if self.counts[device_id] == 1 else event | {"merged": self.counts[device_id]}


TestOutboxAgainstModel = OutboxAgainstModel.TestCase
