"""The queue of one client, against a model that keeps everything and sorts it."""

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec import Raw

from twincast.core.model import Control, DataUpdate, Deleted, Entry, Snapshot, Twin
from twincast.core.state import State
from twincast.delivery.cast import Cast
from twincast.delivery.outbox import EveryOutbox, LatestOutbox
from twincast.wire.messages import encode

PLENTY_BYTES = 1 << 40


def cast_of(*entries: Entry) -> Cast:
    return Cast([encode(entry) for entry in entries], entries)


def update(seq: int, device_id: str = "a") -> DataUpdate:
    return DataUpdate(device_id, Raw(b"%d" % (seq * 100)), f"time {seq}", "rest", seq, "e")


def control(seq: int, command: str = "on") -> Control:
    return Control("a", command, Raw(b"{}"), f"time {seq}", "rest", seq, "e")


def deletion(seq: int, device_id: str = "a") -> Deleted:
    return Deleted(device_id, f"time {seq}", "rest", seq, "e")


def messages_of(casts: Iterable[Cast]) -> list[bytes]:
    return [message for cast in casts for message in cast.messages]


class Followed:
    """A state and an outbox that were given the same casts."""

    def __init__(self) -> None:
        self.state = State(Snapshot("e", 0, {}))
        self.outbox = LatestOutbox()

    def add(self, *entries: Entry) -> None:
        for entry in entries:
            self.state.apply(entry)
        self.outbox.enqueue(cast_of(*entries), self.state.seq)

    def answer(self, message: bytes) -> None:
        self.outbox.enqueue(Cast((message,)), self.state.seq)

    def take(self, max_bytes: int = PLENTY_BYTES) -> list[Any]:
        return [json.loads(message) for message in messages_of(self.outbox.drain(self.state, max_bytes))]


def test_a_client_that_fell_behind_gets_only_the_newest_value_of_a_device_and_how_many_it_stands_for() -> None:
    client = Followed()
    client.add(update(1), update(2))
    client.add(update(3))
    [event] = client.take()
    assert (event["value"], event["seq"], event["timestamp_utc"], event["merged"]) == (300, 3, "time 3", 3)


def test_a_single_change_is_the_very_event_that_others_got() -> None:
    client = Followed()
    client.add(update(1))
    [cast] = client.outbox.drain(client.state, PLENTY_BYTES)
    assert (cast.messages, cast.merged) == ([encode(update(1))], [1])


def test_commands_are_never_merged() -> None:
    client = Followed()
    client.add(control(1, "on"), control(2, "off"), control(3, "on"))
    assert [(event["command"], event["seq"]) for event in client.take()] == [("on", 1), ("off", 2), ("on", 3)]


def test_everything_is_drained_in_order_of_seq() -> None:
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


def test_a_queue_is_drained_in_pieces_and_is_empty_then() -> None:
    client = Followed()
    client.add(update(1, "a"), update(2, "b"), control(3))
    pieces = []
    while client.outbox:
        pieces.append(client.take(max_bytes=1))
    assert [[event["seq"] for event in piece] for piece in pieces] == [[1], [2], [3]]
    assert client.outbox.size_bytes == 0
    assert client.take() == []


class CountingState(State):
    """A state that counts how often the newest of a device is looked up."""

    looked_up = 0

    def newest(self, device_id: str) -> DataUpdate | None:
        self.looked_up += 1
        return super().newest(device_id)


def test_a_large_queue_is_put_in_order_once_however_small_the_pieces_it_is_drained_in() -> None:
    followed = Followed()
    followed.state = CountingState(Snapshot("e", 0, {}))
    followed.add(*(update(seq, f"d{seq % 2_000}") for seq in range(1, 3_001)))
    pieces, seqs = 0, []
    while followed.outbox:
        pieces += 1
        seqs += [event["seq"] for event in followed.take(max_bytes=300)]
    assert (len(seqs), seqs) == (2_000, sorted(seqs))
    assert pieces > 500
    assert followed.state.looked_up <= 2_000 + pieces


def test_a_device_that_was_drained_counts_anew() -> None:
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


def test_what_cannot_be_merged_counts_and_what_can_does_not() -> None:
    client = Followed()
    client.add(*(update(seq, str(seq)) for seq in range(1, 1_000)))
    assert client.outbox.size_bytes == 0
    client.add(control(1_000))
    client.answer(b"x" * 900)
    assert client.outbox.size_bytes == len(encode(control(1_000))) + 900 + 2 * 64


def test_changes_that_were_merged_before_count_as_many_as_they_stand_for() -> None:
    client = Followed()
    client.add(update(1), update(2))
    merged = client.outbox.drain(client.state, PLENTY_BYTES)
    for cast in merged:
        client.outbox.enqueue(cast, 2)
    client.add(update(3))
    assert client.take()[0]["merged"] == 3


def test_of_a_device_that_was_deleted_the_deletion_comes_and_how_many_changes_it_stands_for() -> None:
    client = Followed()
    client.add(update(1), update(2, "b"), deletion(3))
    assert [(event["type"], event["seq"], event.get("merged", 1)) for event in client.take()] == [
        ("data_update", 2, 1),
        ("deleted", 3, 2),
    ]
    assert (client.outbox.size_bytes, bool(client.outbox)) == (0, False)


def test_a_device_that_is_no_more_is_forgotten_by_one_who_is_not_told() -> None:
    client = Followed()
    client.add(update(1), update(2, "b"))
    client.state.apply(deletion(3))  # not selected, so not added
    assert [event["seq"] for event in client.take()] == [2]
    assert not client.outbox


def test_what_is_read_back_is_deleted_in_its_place_though_the_state_is_ahead() -> None:
    outbox, state = LatestOutbox(is_behind_state=True), State(Snapshot("e", 4, {}))
    outbox.enqueue(cast_of(update(1), update(2, "b"), deletion(3)), 3)
    first, last = (json.loads(message) for message in messages_of(outbox.drain(state, PLENTY_BYTES)))
    assert (first["seq"], last["type"], last["seq"]) == (2, "deleted", 3)
    outbox.enqueue(cast_of(update(4), deletion(5, "b")), 5)
    outbox.caught_up()
    state.apply(deletion(5, "b"))
    assert [json.loads(m)["type"] for m in messages_of(outbox.drain(state, PLENTY_BYTES))] == ["deleted"]


def test_forgotten_changes_leave_commands_and_answers() -> None:
    client = Followed()
    client.add(update(1), control(2))
    client.answer(b'"pong"')
    assert client.outbox.drop_entries() is None
    assert [message if message == "pong" else message["seq"] for message in client.take()] == [2, "pong"]


def test_in_mode_every_nothing_is_merged_and_all_comes_as_it_came() -> None:
    outbox, state = EveryOutbox(), State(Snapshot("e", 0, {}))
    casts = [cast_of(update(1), update(2)), Cast((b'"pong"',)), cast_of(control(3))]
    for cast in casts:
        outbox.enqueue(cast, 3)
    assert outbox.size_bytes == sum(len(message) + 64 for message in messages_of(casts))
    assert list(outbox.drain(state, 1)) == casts[:1]
    assert list(outbox.drain(state, PLENTY_BYTES)) == casts[1:]
    assert (bool(outbox), outbox.size_bytes) == (False, 0)


def test_in_mode_every_forgetting_tells_where_to_read_on_and_keeps_the_answers() -> None:
    outbox, state = EveryOutbox(), State(Snapshot("e", 0, {}))
    pong = Cast((b'"pong"',))
    for cast in (pong, cast_of(update(5), update(6)), cast_of(control(7))):
        outbox.enqueue(cast, 7)
    assert outbox.drop_entries() == 5
    assert outbox.size_bytes == 6 + 64
    assert outbox.drop_entries() is None
    assert list(outbox.drain(state, PLENTY_BYTES)) == [pong]


@given(st.text(min_size=1), st.integers(min_value=2))
def test_a_merged_event_has_the_fields_of_any_other(device_id: str, merged: int) -> None:
    outbox = LatestOutbox()
    entry = DataUpdate(device_id, Raw(b'{"x":"}"}'), "now", "websocket", 9, "e")
    for _ in range(min(merged, 50)):
        outbox.enqueue(cast_of(entry), 9)
    state = State(Snapshot("e", 9, {device_id: Twin(entry.value, "now", 9, "websocket")}))
    [message] = messages_of(outbox.drain(state, PLENTY_BYTES))
    assert json.loads(message) == json.loads(encode(entry)) | {"merged": min(merged, 50)}


class OutboxAgainstModel(RuleBasedStateMachine):
    """The model keeps every queued message, and sorts by what each stands for whenever it drains."""

    def __init__(self) -> None:
        super().__init__()
        self.client = Followed()
        self.counts: Counter[str] = Counter()
        self.newest: dict[str, DataUpdate | Deleted] = {}
        self.messages: list[tuple[int, bytes]] = []

    @rule(devices=st.lists(st.sampled_from(["a", "b", "c", "-a", "-b", None]), min_size=1, max_size=5))
    def commit(self, devices: list[str | None]) -> None:
        entries: list[Entry] = []
        for seq, device_id in enumerate(devices, self.client.state.seq + 1):
            if device_id is None:
                entries.append(control(seq))
                self.messages.append((seq, encode(entries[-1])))
                continue
            name = device_id.removeprefix("-")
            self.newest[name] = update(seq, name) if name == device_id else deletion(seq, name)
            entries.append(self.newest[name])
            self.counts[name] += 1
        self.client.add(*entries)

    @rule(size=st.integers(0, 200))
    def answer(self, size: int) -> None:
        message = b'"%b"' % (b"p" * size)
        self.messages.append((self.client.state.seq, message))
        self.client.answer(message)

    @precondition(lambda self: self.counts or self.messages)
    @rule(max_bytes=st.integers(1, 1_000))
    def take(self, max_bytes: int) -> None:
        queue: list[tuple[int, int, str | None, Any]] = [
            (self.newest[device_id].seq, 0, device_id, self._event(device_id)) for device_id in self.counts
        ]
        queue += [(seq, 1, None, json.loads(message)) for seq, message in self.messages]
        queue.sort(key=lambda queued: queued[:2])
        taken = messages_of(self.client.outbox.drain(self.client.state, max_bytes))
        assert [json.loads(message) for message in taken] == [queued[3] for queued in queue[: len(taken)]]
        assert taken and sum(map(len, taken[:-1])) < max_bytes
        assert len(taken) == len(queue) or sum(map(len, taken)) >= max_bytes
        for _, _, device_id, _ in queue[: len(taken)]:
            if device_id is None:
                self.messages.pop(0)
            else:
                del self.counts[device_id]

    @invariant()
    def it_queues_as_much_as_the_model(self) -> None:
        assert bool(self.client.outbox) == bool(self.counts or self.messages)
        size_bytes = sum(len(message) + 64 for _, message in self.messages)
        size_bytes += 256 * sum(isinstance(self.newest[device_id], Deleted) for device_id in self.counts)
        assert self.client.outbox.size_bytes == size_bytes

    def _event(self, device_id: str) -> Any:
        event = json.loads(encode(self.newest[device_id]))
        return event if self.counts[device_id] == 1 else event | {"merged": self.counts[device_id]}


TestOutboxAgainstModel = OutboxAgainstModel.TestCase
