"""One client's place in the stream, against the log: what its subscription selects, once and in order."""

import json
from collections import Counter
from functools import partial
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import Raw

from tests.fakes import CommittingStream, FreePayer, RecordingConnection, StallingConnection
from twincast.core.model import Control, DataUpdate, Deleted, Entry, Position
from twincast.core.pattern import LENGTH_STEPS, LOOK_STEPS, Pattern
from twincast.core.subscription import Mode, Subscription, rules_of
from twincast.delivery.cast import Cast
from twincast.delivery.feed import ENTRIES_AT_ONCE, Feed
from twincast.delivery.scheduler import AT_ONCE_STEPS, SLICE_STEPS
from twincast.delivery.snapshots import SHARED_FROM_DEVICES
from twincast.errors import FellBehind, JournalUnavailable, TwincastError

PLENTY_BYTES = 1 << 40
CAST_OF_PONG = Cast((b'{"type":"pong"}',))


def selecting(*patterns: str, mode: Mode = "latest", max_hz: float | None = None) -> Subscription:
    return Subscription(rules_of(patterns), mode, max_hz)


class Client:
    """A feed on a connection, and the errors that ended it."""

    def __init__(
        self,
        stream: CommittingStream,
        connection: RecordingConnection | None = None,
        *,
        outbox_max_bytes: int = PLENTY_BYTES,
    ) -> None:
        self.connection = connection or RecordingConnection()
        self.ended: list[TwincastError] = []
        self.budget = FreePayer()
        self.feed = Feed(
            self.connection.write, stream, self.ended.append, budget=self.budget, outbox_max_bytes=outbox_max_bytes
        )
        if isinstance(self.connection, StallingConnection):
            self.connection.pause = self.feed.sender.pause

    def heard(self) -> list[Any]:
        """Return what the client was sent since the last call."""
        return [json.loads(message) for message in self.connection.taken()]

    def seqs(self) -> list[int]:
        return [message["seq"] for message in self.heard()]


def a_stream(*devices: str, **options: Any) -> CommittingStream:
    stream = CommittingStream(**options)
    for device_id in devices:
        stream.change(device_id, b"%d" % (stream.state.seq + 1))
    return stream


def a_client(stream: CommittingStream, subscription: Subscription, **options: Any) -> Client:
    client = Client(stream, **options)
    client.feed.begin(subscription)
    client.heard()
    return client


EVERYTHING = selecting("*")


def test_a_client_that_comes_back_gets_what_it_missed_and_then_what_comes() -> None:
    stream = a_stream(*"abcdefgh")
    client = Client(stream)
    client.feed.begin(EVERYTHING, since=Position("epoch-1", 3))
    hello, *missed = client.heard()
    assert (hello["resumed"], hello["seq"], hello["data_snapshot"], "reason" in hello) == (True, 3, {}, False)
    assert [event["seq"] for event in missed] == [4, 5, 6, 7, 8]
    stream.change("i", b"1")
    assert client.seqs() == [9]


def test_a_client_that_missed_nothing_goes_on_at_once() -> None:
    stream = a_stream("a")
    client = Client(stream)
    client.feed.begin(EVERYTHING, since=Position("epoch-1", 1))
    stream.change("a", b"2")
    assert client.seqs() == [1, 2]


@pytest.mark.parametrize(
    ("since", "reason"),
    [(Position("other", 2), "epoch"), (Position("epoch-1", 9), "ahead"), (Position("epoch-1", 0), "too_old")],
)
def test_a_position_that_cannot_be_resumed_is_answered_by_the_reason_and_the_state(
    since: Position, reason: str
) -> None:
    stream = a_stream("a", "b", "a")
    stream.oldest_since = 1
    client = Client(stream)
    client.feed.begin(EVERYTHING, since=since)
    [hello] = client.heard()
    assert (hello["resumed"], hello["reason"], hello["seq"]) == (False, reason, 3)
    assert {device: twin["seq"] for device, twin in hello["data_snapshot"].items()} == {"a": 3, "b": 2}


def test_what_comes_while_the_log_is_read_back_is_not_lost_and_comes_behind_it() -> None:
    stream = a_stream(*"abcdefgh")
    stream.reads_wait = True
    client = Client(stream)
    client.feed.begin(EVERYTHING, since=Position("epoch-1", 1))
    stream.change("i", b"1")
    for _ in range(5):
        stream.read_on()
        stream.change("x", b"1")
    stream.read_on()
    stream.read_on()
    seqs = client.seqs()[1:]
    assert seqs == list(range(2, stream.state.seq + 1))


def test_a_client_that_leaves_while_the_log_is_read_back_hears_nothing_more() -> None:
    stream = a_stream("a", "b")
    stream.reads_wait = True
    client = Client(stream)
    client.feed.begin(EVERYTHING, since=Position("epoch-1", 0))
    client.heard()
    client.feed.close()
    stream.read_on()
    stream.change("a", b"1")
    assert (client.heard(), len(stream.router)) == ([], 0)


def test_a_disk_that_does_not_give_the_log_ends_the_feed() -> None:
    class FailingStream(CommittingStream):
        def _block(self, since: int, until: int) -> TwincastError:
            return JournalUnavailable("the disk is gone")

    stream = FailingStream()
    stream.change("a", b"1")
    client = Client(stream)
    client.feed.begin(EVERYTHING, since=Position("epoch-1", 0))
    stream.read_on()
    assert [error.code for error in client.ended] == ["journal_unavailable"]


def test_a_log_that_was_cut_off_meanwhile_is_a_gap_and_the_state_follows() -> None:
    stream = a_stream(*"abcabc", block_entries=2)
    stream.reads_wait = True
    client = Client(stream)
    client.feed.begin(EVERYTHING, since=Position("epoch-1", 0))
    stream.read_on()
    stream.oldest_since = 4
    stream.read_on()
    _, first, second, gap, snapshot = client.heard()
    assert (first["seq"], second["seq"]) == (1, 2)
    assert gap == {"type": "gap", "epoch": "epoch-1", "from": 3, "to": 6}
    assert {device: twin["seq"] for device, twin in snapshot["data_snapshot"].items()} == {"a": 4, "b": 5, "c": 6}
    assert snapshot["seq"] == 6
    stream.change("a", b"1")
    assert client.seqs() == [7]


def test_only_what_is_selected_comes_and_only_its_state() -> None:
    stream = a_stream("lab/a", "old/b", "lab/c")
    client = Client(stream)
    client.feed.begin(selecting("lab/*", "door"))
    [hello] = client.heard()
    assert sorted(hello["data_snapshot"]) == ["lab/a", "lab/c"]
    for device_id in ("lab/a", "old/b", "door", "doors", "lab/new"):
        stream.change(device_id, b"1")
    stream.command("lab/a")
    stream.command("old/b")
    assert [message.get("device_id") or message["target"] for message in client.heard()] == [
        "lab/a",
        "door",
        "lab/new",
        "lab/a",
    ]


def test_kinds_select_by_themselves() -> None:
    stream = a_stream()
    commands = a_client(stream, Subscription(rules_of(["*"], ["control"])))
    data = a_client(stream, Subscription(rules_of(["*"], ["data_update"])))
    stream.change("a", b"1")
    stream.command("a")
    assert (commands.seqs(), data.seqs()) == ([2], [1])


def test_a_deletion_comes_in_its_place_and_the_device_is_no_more_in_what_others_begin_with() -> None:
    stream = a_stream("a", "b")
    client = a_client(stream, EVERYTHING)
    stream.delete("a")
    stream.change("c", b"1")
    deleted, change = client.heard()
    assert (deleted["type"], deleted["device_id"], deleted["seq"], change["seq"]) == ("deleted", "a", 3, 4)
    newcomer, one_who_names_it = Client(stream), Client(stream)
    newcomer.feed.begin(EVERYTHING)
    one_who_names_it.feed.begin(selecting("a", "b"))
    assert sorted(newcomer.heard()[0]["data_snapshot"]) == ["b", "c"]
    assert sorted(one_who_names_it.heard()[0]["data_snapshot"]) == ["b"]
    stream.change("a", b"2")
    assert (client.seqs(), newcomer.seqs(), one_who_names_it.seqs()) == ([5], [5], [5])


def test_a_client_that_comes_back_is_told_what_was_deleted_meanwhile() -> None:
    stream = a_stream("a", "b")
    stream.delete("a")
    client = Client(stream)
    client.feed.begin(EVERYTHING, since=Position("epoch-1", 2))
    assert [(message["type"], message["seq"]) for message in client.heard()] == [("hello", 2), ("deleted", 3)]


def test_who_did_not_keep_up_is_told_that_a_device_is_no_more_and_not_what_it_said_before() -> None:
    stream = a_stream("a", "b")
    client = a_client(stream, EVERYTHING)
    client.feed.sender.pause()
    stream.change("a", b"7")
    stream.delete("a")
    stream.change("b", b"8")
    client.feed.sender.resume()
    assert [(m["type"], m["device_id"], m["seq"], m.get("merged", 1)) for m in client.heard()] == [
        ("deleted", "a", 4, 2),
        ("data_update", "b", 5, 1),
    ]


def test_who_did_not_keep_up_is_told_the_newest_of_a_device_that_was_made_anew() -> None:
    stream = a_stream("a")
    client = a_client(stream, EVERYTHING)
    client.feed.sender.pause()
    stream.delete("a")
    stream.change("a", b"7")
    client.feed.sender.resume()
    [change] = client.heard()
    assert (change["type"], change["seq"], change["merged"]) == ("data_update", 3, 2)


@pytest.mark.parametrize("max_hz", [None, 10.0])
def test_who_asked_for_readings_alone_gets_nothing_of_a_device_that_is_no_more(max_hz: float | None) -> None:
    stream = a_stream("a")
    client = a_client(stream, Subscription(rules_of(["*"], ["data_update"]), "latest", max_hz))
    stream.change("b", b"1")
    client.heard()
    client.feed.sender.pause()
    stream.change("a", b"7")
    stream.delete("a")
    client.feed.sender.resume()
    stream.pass_time(1)
    assert client.heard() == []
    assert client.feed.position == ("epoch-1", stream.state.seq)
    stream.change("a", b"8")
    stream.pass_time(1)
    assert [(message["seq"], message["value"]) for message in client.heard()] == [(5, 8)]


@pytest.mark.parametrize("mode", ["latest", "every"])
def test_deletions_of_ever_new_devices_cost_a_stalled_client_no_more_than_its_bound(mode: Mode) -> None:
    stream = a_stream()
    client = a_client(stream, selecting("*", mode=mode), outbox_max_bytes=10_000)
    client.feed.sender.pause()
    for number in range(1_000):
        stream.change(f"d{number}", b"1")
        stream.delete(f"d{number}")
    if mode == "latest":
        assert isinstance(client.ended[0], FellBehind)
    else:
        client.feed.sender.resume()
        assert client.seqs() == list(range(1, 2_001))


def test_deletions_of_ever_new_devices_wait_in_a_throttled_group_only_up_to_a_bound() -> None:
    stream = a_stream()
    client = a_client(stream, selecting("*", max_hz=0.01))
    for number in range(2_000):
        stream.change(f"d{number}", b"1")
        stream.delete(f"d{number}")
    assert len(client.seqs()) > 1_000, "what cannot be merged goes before its time"


def test_equal_subscriptions_share_one_group_and_one_cast() -> None:
    stream = a_stream()
    first, second = (a_client(stream, selecting("lab/*", "x")) for _ in range(2))
    a_client(stream, selecting("other"))
    assert len(stream.router) == 2
    stream.cast(*(DataUpdate(name, Raw(b"1"), "", "rest") for name in ("x", "y", "lab/z")))
    [of_first], [of_second] = first.connection.casts, second.connection.casts
    assert of_first is of_second
    assert [entry.seq for entry in of_first.entries] == [1, 3]


def test_a_group_that_nobody_is_left_in_goes() -> None:
    stream = a_stream()
    clients = [a_client(stream, selecting(pattern)) for pattern in ("a", "a*", "*")]
    for client in clients:
        client.feed.close()
    assert len(stream.router) == 0
    stream.change("a", b"1")
    again = a_client(stream, selecting("a*"))
    stream.change("a", b"1")
    assert again.seqs() == [2]


def test_in_mode_every_nothing_is_merged() -> None:
    stream = a_stream()
    client = a_client(stream, selecting("*", mode="every"))
    client.feed.sender.pause()
    for _ in range(3):
        stream.change("a", b"1")
    client.feed.sender.resume()
    assert [(message["seq"], "merged" in message) for message in client.heard()] == [(1, False), (2, False), (3, False)]


def test_in_mode_every_what_passes_the_bound_is_read_back_from_the_log() -> None:
    stream = a_stream()
    client = a_client(stream, selecting("*", mode="every"), outbox_max_bytes=1_000)
    client.feed.sender.pause()
    for _ in range(100):
        stream.change("a", b"1")
    client.feed.sender.resume()
    assert client.seqs() == list(range(1, 101))
    assert client.ended == []
    stream.change("a", b"1")
    assert client.seqs() == [101]


def test_in_mode_every_a_stalled_client_holds_no_more_than_its_bound() -> None:
    stream = a_stream()
    client = a_client(stream, selecting("*", mode="every"), outbox_max_bytes=1_000)
    client.feed.sender.pause()
    for _ in range(1_000):
        stream.change("a", b"1")
    assert len(stream.router) == 0, "nothing is offered to it any more"
    assert client.feed.position is None


def test_answers_beyond_the_bound_end_the_feed_in_either_mode() -> None:
    modes: tuple[Mode, ...] = ("latest", "every")
    for mode in modes:
        stream = a_stream()
        client = a_client(stream, Subscription(mode=mode), outbox_max_bytes=1_000)
        client.feed.sender.pause()
        for _ in range(100):
            stream.command("a", "x" * 50)
            client.feed.sender.offer(CAST_OF_PONG)
        assert isinstance(client.ended[0], FellBehind)


def test_at_most_so_often_a_second_the_newest_of_each_device_comes() -> None:
    stream = a_stream()
    client = a_client(stream, selecting("*", max_hz=10))
    stream.change("a", b"1")
    assert client.seqs() == [1], "the first change does not wait"
    for device_id in "aabab":
        stream.change(device_id, b"1")
    assert client.heard() == []
    stream.pass_time(0.1)
    assert [(event["device_id"], event["seq"], event["merged"]) for event in client.heard()] == [
        ("a", 5, 3),
        ("b", 6, 2),
    ]
    stream.pass_time(0.1)
    stream.change("a", b"1")
    assert client.seqs() == [7], "nothing came for a while, so this one goes at once"


def test_a_command_does_not_wait_and_takes_along_what_waited_before_it() -> None:
    stream = a_stream()
    client = a_client(stream, selecting("*", max_hz=10))
    stream.change("a", b"1")
    stream.change("a", b"2")
    stream.command("b")
    assert client.seqs() == [1, 2, 3]


def test_one_who_comes_between_two_flushes_gets_no_change_twice_and_misses_none() -> None:
    stream = a_stream()
    first = a_client(stream, selecting("*", max_hz=10))
    stream.change("a", b"1")
    stream.change("a", b"2")
    second = Client(stream)
    second.feed.begin(selecting("*", max_hz=10))
    stream.change("a", b"3")
    stream.pass_time(0.1)
    assert [(m["seq"], m.get("merged", 1)) for m in first.heard()] == [(1, 1), (3, 2)]
    hello, change = second.heard()
    assert (hello["seq"], change["seq"], change.get("merged", 1)) == (2, 3, 1)


def test_a_position_is_told_only_to_those_who_have_everything_up_to_it() -> None:
    stream = a_stream()
    live, throttled = a_client(stream, EVERYTHING), a_client(stream, selecting("*", max_hz=10))
    stream.change("a", b"1")
    stream.change("a", b"2")
    assert live.feed.position == ("epoch-1", 2)
    assert throttled.feed.position == ("epoch-1", 1), "the second change waits in the group"
    live.feed.sender.pause()
    stream.change("a", b"3")
    assert live.feed.position is None
    live.feed.sender.resume()
    assert live.feed.position == ("epoch-1", 3)


def test_a_changed_subscription_brings_the_state_of_what_it_adds_and_nothing_of_what_it_leaves() -> None:
    stream = a_stream("a", "b", "c")
    client = a_client(stream, selecting("a", "b"))
    client.feed.change(selecting("b", "c"), lambda: None)
    [snapshot] = client.heard()
    assert (snapshot["type"], snapshot["seq"], list(snapshot["data_snapshot"])) == ("snapshot", 3, ["c"])
    for device_id in "abc":
        stream.change(device_id, b"1")
    assert client.seqs() == [5, 6]


def test_a_large_state_comes_in_pages_as_the_client_takes_them() -> None:
    stream = a_stream(*(f"d{number}" for number in range(10)))
    client = Client(stream, StallingConnection(writes_until_full=1))
    client.feed.begin(EVERYTHING, page_size=4)
    pages = client.heard()
    while len(pages) < 3:
        stream.change(f"d{len(pages)}", b"1")
        client.feed.sender.resume()
        pages += client.heard()
    assert [page["type"] for page in pages] == ["hello", "snapshot", "snapshot"]
    assert [len(page["data_snapshot"]) for page in pages] == [4, 4, 2]
    assert [page.get("more", False) for page in pages] == [True, True, False]
    assert {page["seq"] for page in pages} == {10}
    client.feed.sender.resume()
    client.feed.sender.resume()
    assert client.seqs() == [11, 12]


def test_a_state_of_many_devices_is_encoded_once_for_all_who_come_together() -> None:
    stream = CommittingStream(block_entries=512)
    stream.cast(*(DataUpdate(f"d{number}", Raw(b"1"), "", "rest") for number in range(2_000)))
    for number in range(100):
        client = Client(stream)
        client.feed.begin(EVERYTHING)
        hello, *behind = client.heard()
        assert hello["seq"] + len(behind) == stream.state.seq
        stream.change(f"d{number}", b"2")
        assert client.seqs() == [stream.state.seq]
    assert stream.snapshots.encoded_count == 1
    stream.pass_time(1.5)
    Client(stream).feed.begin(EVERYTHING)
    assert stream.snapshots.encoded_count == 2, "a second later the bytes are made anew"


def test_a_large_state_comes_in_parts_also_unasked_and_no_message_of_it_is_larger_than_a_part() -> None:
    stream = CommittingStream(part_max_bytes=2_000)
    names = [f'ü"\\{number}' for number in range(40)] + ["large"]
    stream.cast(*(DataUpdate(name, Raw(b'"%b"' % (b"x" * 90)), "", "websocket") for name in names[:-1]))
    stream.change("large", b'"%b"' % (b"x" * 9_000))
    client = Client(stream)
    client.feed.begin(EVERYTHING)
    sizes = [len(message) for message in client.connection.messages]
    hello, *parts = client.heard()
    assert (hello["type"], {part["type"] for part in parts}) == ("hello", {"snapshot"})
    assert [message.get("more", False) for message in (hello, *parts)] == [True] * len(parts) + [False]
    assert [name for message in (hello, *parts) for name in message["data_snapshot"]] == names
    assert max(sizes[:-1]) < 2_000 + 400 < sizes[-1], "beside a twin that is larger by itself"
    stream.change("a", b"1")
    assert client.seqs() == [42]


def test_a_client_that_takes_the_state_slowly_is_spared_what_it_has_already_and_no_device_goes_back() -> None:
    for mode in ("latest", "every"):
        stream = a_stream(*"abcdef")
        client = Client(stream, StallingConnection(writes_until_full=1))
        client.feed.begin(selecting("*", mode=mode), page_size=2)
        for device_id in "acace":
            stream.change(device_id, b"%d" % (stream.state.seq + 1))
        messages = []
        for _ in range(10):
            messages += client.heard()
            client.feed.sender.resume()
        pages, events = messages[:3], messages[3:]
        assert [{name: twin["seq"] for name, twin in page["data_snapshot"].items()} for page in pages] == [
            {"a": 1, "b": 2},
            {"c": 10, "d": 4},
            {"e": 11, "f": 6},
        ]
        assert {page["seq"] for page in pages} == {6}
        heard = [(event["device_id"], event["seq"], event.get("merged", 1)) for event in events]
        assert heard == ([("a", 9, 2)] if mode == "latest" else [("a", 7, 1), ("a", 9, 1)])


def test_clients_that_never_take_the_state_keep_no_more_of_it_than_a_part_each() -> None:
    stream = CommittingStream(part_max_bytes=4_000)
    stream.cast(*(DataUpdate(f"d{number}", Raw(b'"%b"' % (b"x" * 300)), "", "rest") for number in range(1_000)))
    whole = sum(memoryview(twin.value).nbytes for twin in stream.state.twins.values())
    clients = []
    for number in range(50):
        client = Client(stream, StallingConnection(writes_until_full=1))
        client.feed.begin(selecting("*", f"{number}"))
        clients.append(client)
        for device in range(200):  # so that no greeting can be shared with the next one
            stream.change(f"d{device}", b'"%b"' % (b"y" * 300))
    assert stream.snapshots.encoded_count == len(clients)
    assert sum(len(message) for client in clients for message in client.connection.messages) < whole


def test_a_state_of_few_devices_is_always_the_newest() -> None:
    stream = a_stream("a")
    for number in range(5):
        stream.change("a", b"%d" % number)
        client = Client(stream)
        client.feed.begin(EVERYTHING)
        [hello] = client.heard()
        assert hello["data_snapshot"]["a"]["value"] == number


def waiting(stream: CommittingStream) -> CommittingStream:
    """Return a stream on which no work is so short that it is done at once."""
    stream.scheduler.at_once_steps = 0
    return stream


def work_on(stream: CommittingStream) -> None:
    for _ in range(20):
        stream.pass_time(0)


def test_until_it_is_known_what_is_selected_a_client_is_told_nothing_and_then_all_in_order() -> None:
    stream = waiting(a_stream("lab/a", "x"))
    client = Client(stream)
    client.feed.begin(selecting("lab/*"))
    client.feed.sender.offer(CAST_OF_PONG)
    stream.change("lab/b", b"1")
    client.feed.sender.resume()
    assert (client.heard(), client.feed.position) == ([], None)
    stream.change("lab/c", b"1")
    work_on(stream)
    hello, pong = client.heard()
    assert (hello["type"], hello["seq"], sorted(hello["data_snapshot"])) == ("hello", 4, ["lab/a", "lab/b", "lab/c"])
    assert pong["type"] == "pong"
    stream.change("lab/a", b"2")
    assert client.seqs() == [5]


def test_a_fleet_that_waits_for_the_same_is_greeted_whole() -> None:
    stream = waiting(a_stream("lab/a", "x"))
    fleet = [Client(stream) for _ in range(30)]
    for client in fleet:
        client.feed.begin(selecting("lab/*"))
    work_on(stream)
    assert all(client.feed.is_caught_up for client in fleet)
    assert {tuple(hello["data_snapshot"]) for client in fleet for hello in client.heard()} == {("lab/a",)}
    assert (len(stream.scheduler), stream.timers) == (0, [])


def test_a_fleet_that_waits_for_the_same_large_state_is_sent_it_whole_and_all_that_follows() -> None:
    stream = CommittingStream(block_entries=512)
    stream.cast(*(DataUpdate(f"lab/{number}", Raw(b"1"), "", "rest") for number in range(2 * SHARED_FROM_DEVICES)))
    stream.change("x", b"1")
    waiting(stream)
    fleet = [Client(stream) for _ in range(30)]
    for client in fleet:
        client.feed.begin(selecting("lab/*"))
        client.feed.sender.offer(CAST_OF_PONG)
    work_on(stream)
    assert stream.snapshots.encoded_count == 1, "the first one's snapshot is shared by those who waited with it"
    for client in fleet:
        hello, pong = client.heard()
        assert (hello["type"], len(hello["data_snapshot"]), pong["type"]) == ("hello", 2 * SHARED_FROM_DEVICES, "pong")
        assert client.feed.is_caught_up
    stream.change("lab/1", b"2")
    assert [client.seqs() for client in fleet] == [[stream.state.seq]] * len(fleet)


def test_nothing_is_said_before_the_greeting_not_even_at_the_end() -> None:
    stream = waiting(a_stream("lab/a"))
    client = Client(stream)
    client.feed.begin(selecting("lab/*"))
    client.feed.sender.offer(CAST_OF_PONG)
    client.feed.send_replies()
    client.feed.close()
    assert client.heard() == []


def test_until_it_is_known_what_a_change_adds_the_old_subscription_goes_on_and_other_wishes_wait() -> None:
    stream = a_stream("a", "b1", "b2")
    client = a_client(stream, selecting("a"))
    told: list[str] = []

    def change(pattern: str) -> None:
        told.append(f"begins {pattern}")
        client.feed.change(selecting(pattern), lambda: told.append(pattern))

    waiting(stream)
    for pattern in ("b*", "c"):
        client.feed.when_caught_up(partial(change, pattern))
    stream.change("a", b"2")
    stream.change("b1", b"2")
    assert (client.seqs(), told) == ([4], ["begins b*"])
    stream.scheduler.at_once_steps = AT_ONCE_STEPS
    work_on(stream)
    [snapshot] = client.heard()
    assert {device: twin["seq"] for device, twin in snapshot["data_snapshot"].items()} == {"b1": 5, "b2": 3}
    assert told == ["begins b*", "b*", "begins c", "c"]
    for device_id in ("a", "b1", "c"):
        stream.change(device_id, b"3")
    assert client.seqs() == [8]


def test_a_change_of_one_who_fell_behind_meanwhile_waits_until_he_has_caught_up() -> None:
    stream = a_stream("a", "b")
    client = a_client(stream, selecting("a"))
    told: list[str] = []
    waiting(stream)
    client.feed.when_caught_up(lambda: client.feed.change(selecting("b*"), lambda: told.append("b*")))
    client.feed.sender.pause()
    stream.change("a", b"2")
    work_on(stream)
    assert (client.heard(), told) == ([], [])
    stream.change("bee", b"1")
    client.feed.sender.resume()
    work_on(stream)
    update, snapshot = client.heard()
    assert (update["seq"], sorted(snapshot["data_snapshot"]), told) == (3, ["b", "bee"], ["b*"])


def test_who_leaves_is_worked_for_no_longer() -> None:
    stream = a_stream(*(f"d{number}" for number in range(9)), block_entries=3)
    live = a_client(stream, selecting("x"))
    waiting(stream)
    coming, resuming = Client(stream), Client(stream)
    coming.feed.begin(selecting("d*"))
    resuming.feed.begin(selecting("*1"), since=Position("epoch-1", 0))
    live.feed.change(selecting("*7"), lambda: None)
    assert len(stream.scheduler) == 3
    for client in (coming, resuming, live):
        client.feed.close()
        client.budget.paid.clear()
    work_on(stream)
    assert coming.budget.paid == resuming.budget.paid == live.budget.paid == []
    assert (len(stream.scheduler), len(stream.router), stream.timers) == (0, 0, [])
    assert coming.heard() == [] and live.heard() == []


def test_a_log_that_selects_nothing_is_read_back_with_pauses_for_others() -> None:
    stream = CommittingStream(block_entries=512)
    stream.cast(*(DataUpdate(f"d{number % 10}", Raw(b"1"), "", "rest") for number in range(5 * ENTRIES_AT_ONCE)))
    client = Client(stream)
    client.feed.begin(selecting("x"), since=Position("epoch-1", 0))
    scheduler = 0
    while not client.feed.is_caught_up:
        scheduler += 1
        stream.pass_time(0)
    assert scheduler >= 5
    stream.change("x", b"1")
    assert client.seqs() == [0, stream.state.seq]


def test_many_devices_and_patterns_are_asked_about_in_slices_and_paid_for() -> None:
    stream = CommittingStream(block_entries=512)
    stream.cast(*(DataUpdate(f"{'a' * 100}{number}", Raw(b"1"), "", "rest") for number in range(300)))
    a_name = 100 * Pattern("*" + "a*" * 60 + "b00*").cost + LOOK_STEPS + LENGTH_STEPS
    for since in (None, Position("epoch-1", 0)):
        budget, connection = FreePayer(), RecordingConnection()
        feed = Feed(connection.write, stream, lambda _: None, budget=budget, outbox_max_bytes=PLENTY_BYTES)
        feed.begin(selecting(*("*" + "a*" * 60 + f"b{number}*" for number in range(100))), since=since)
        while not feed.is_caught_up:
            stream.pass_time(0)
        assert max(budget.paid) <= SLICE_STEPS + a_name
        assert sum(budget.paid) >= 300 * 100 * 60


NAMES = ["lab/a", "lab/b", "x", "y", "z"]
FILTERS = [["*"], ["lab/*"], ["x"], ["x", "lab/a"], ["*/a", "y"], []]
HOW: tuple[tuple[Mode, float | None], ...] = (("latest", None), ("latest", 10.0), ("every", None))
READABLE = [
    frozenset({"*"}),
    frozenset({"lab/*"}),
    frozenset({"x", "lab/a"}),
    frozenset({"*/a", "y"}),
    frozenset[str](),
]
SUBSCRIPTIONS = [
    Subscription(rules_of(patterns, kinds), mode, max_hz).inside(readable)
    for readable in READABLE
    for patterns in FILTERS
    for kinds in (None, ["data_update"], ["control"], ["deleted"], ["data_update", "deleted"])
    for mode, max_hz in HOW
]


class Watching:
    """A client that follows its cursor through cuts, and what the log owes it."""

    def __init__(self, stream: CommittingStream, subscription: Subscription, writes_until_full: int) -> None:
        self.stream = stream
        self.subscription = subscription
        self._writes_until_full = writes_until_full
        self.cursor: Position | None = None
        self.told_until: int | None = None  # stays when a new greeting is cut off before there is a cursor again
        self.state: dict[str, Any] = {}
        self.counted: Counter[str] = Counter()
        self.seqs: list[int] = []
        self.newer: dict[str, int] = {}
        self.newer_here: dict[str, int] = {}  # a connection that resumes says it again
        self.gaps: list[tuple[int, int]] = []
        self.started_at = 0
        self.was_cut = False
        self.connect()

    def connect(self) -> None:
        self.was_cut |= self.told_until is not None
        self.newer_here = {}
        self.client = Client(self.stream, StallingConnection(self._writes_until_full), outbox_max_bytes=2_000)
        self.client.feed.begin(self.subscription, since=self.cursor)
        self.read()

    def read(self) -> None:
        for message in self.client.heard():
            getattr(self, f"_{message['type']}")(message)

    def settle(self) -> None:
        """Take everything that there is for this client."""
        for _ in range(500):
            self.read()
            if self.client.ended:
                self.client.feed.close()
                self.connect()
            if self.client.feed.is_caught_up:
                break
            self.client.feed.sender.resume()
            self.stream.read_on()
            self.stream.pass_time(1)
        self.read()
        self.stream.pass_time(1)
        self.stream.pass_time(1)
        self.read()

    def _hello(self, message: Any) -> None:
        if not message["resumed"]:
            if self.told_until is not None:
                self.gaps.append((self.told_until + 1, message["seq"]))
            else:
                self.started_at = message["seq"]
            self.state = {}
            self._snapshot(message)
        if message.get("more"):
            self.cursor = None
        else:
            self._stands_at(message)

    def _gap(self, message: Any) -> None:
        self.was_cut = True
        self.state = {}
        self.gaps.append((message["from"], message["to"]))

    def _snapshot(self, message: Any) -> None:
        for device, twin in message["data_snapshot"].items():
            self.state[device] = twin["value"]
            if twin["seq"] > message["seq"]:
                self.newer[device] = self.newer_here[device] = twin["seq"]
        if not message.get("more"):
            self._stands_at(message)

    def _data_update(self, message: Any) -> None:
        assert message["seq"] > self.newer_here.get(message["device_id"], 0), "no device goes back"
        self.state[message["device_id"]] = message["value"]
        self.counted[message["device_id"]] += message.get("merged", 1)
        self._moved(message)

    def _deleted(self, message: Any) -> None:
        self.state.pop(message["device_id"], None)
        self.counted[message["device_id"]] += message.get("merged", 1)
        self._moved(message)

    def _control(self, message: Any) -> None:
        self._moved(message)

    def _moved(self, message: Any) -> None:
        assert message["type"] == self.stream.log[message["seq"] - 1].topic[0]
        self.seqs.append(message["seq"])
        self._stands_at(message)

    def _stands_at(self, message: Any) -> None:
        self.cursor, self.told_until = Position(message["epoch"], message["seq"]), message["seq"]


class FeedsAgainstTheLog(RuleBasedStateMachine):
    """Clients with any subscription, on connections that stall and break, over a log that is read back late and cut."""

    @initialize()
    def begin(self) -> None:
        self.stream = CommittingStream(block_entries=4, part_max_bytes=150)
        self.clients: list[Watching] = []

    @rule(names=st.lists(st.sampled_from([*NAMES, "!x", "!lab/a", "-x", "-y", "-lab/a"]), min_size=1, max_size=6))
    def commit(self, names: list[str]) -> None:
        entries: list[Entry] = []
        for seq, name in enumerate(names, self.stream.state.seq + 1):
            if name.startswith("!"):
                entries.append(Control(name[1:], "on", Raw(b"{}"), "", "rest"))
            elif name.startswith("-"):
                entries.append(Deleted(name[1:], "", "rest"))
            else:
                entries.append(DataUpdate(name, Raw(b"%d" % seq), "", "rest"))
        self.stream.cast(*entries)

    @precondition(lambda self: len(self.clients) < 6)
    @rule(subscription=st.sampled_from(SUBSCRIPTIONS), writes_until_full=st.integers(1, 6))
    def come(self, subscription: Subscription, writes_until_full: int) -> None:
        self.clients.append(Watching(self.stream, subscription, writes_until_full))

    @precondition(lambda self: self.clients)
    @rule(chosen=st.integers(0, 5))
    def cut(self, chosen: int) -> None:
        client = self.clients[chosen % len(self.clients)]
        if client.client.ended:
            return
        client.client.feed.close()
        client.connect()

    @precondition(lambda self: self.clients)
    @rule(chosen=st.integers(0, 5))
    def take(self, chosen: int) -> None:
        client = self.clients[chosen % len(self.clients)]
        client.client.feed.sender.resume()
        client.read()

    @precondition(lambda self: self.clients)
    @rule(chosen=st.integers(0, 5))
    def stall(self, chosen: int) -> None:
        self.clients[chosen % len(self.clients)].client.feed.sender.pause()

    @rule(seconds=st.sampled_from([0.05, 0.2]))
    def pass_time(self, seconds: float) -> None:
        self.stream.pass_time(seconds)

    @rule(wait=st.booleans())
    def read_on(self, wait: bool) -> None:
        self.stream.reads_wait = wait
        self.stream.read_on()

    @rule(waits=st.booleans())
    def let_work_wait(self, waits: bool) -> None:
        self.stream.scheduler.at_once_steps = 0 if waits else AT_ONCE_STEPS

    @rule()
    def work_on(self) -> None:
        self.stream.pass_time(0)

    @rule(keep=st.integers(0, 20))
    def prune(self, keep: int) -> None:
        self.stream.oldest_since = max(self.stream.oldest_since, self.stream.state.seq - keep)

    @invariant()
    def what_was_heard_is_in_order_and_selected(self) -> None:
        for client in getattr(self, "clients", ()):
            client.read()
            assert client.seqs == sorted(set(client.seqs))
            assert all(client.subscription.selects(self.stream.log[seq - 1].topic) for seq in client.seqs)

    def teardown(self) -> None:
        for client in getattr(self, "clients", ()):
            client.settle()
            self._check(client)

    def _check(self, client: Watching) -> None:
        selected = [entry for entry in self.stream.log if client.subscription.selects(entry.topic)]
        newest = {
            device_id: int(bytes(twin.value))
            for device_id, twin in self.stream.state.twins.items()
            if client.subscription.selects(("data_update", device_id))
        }
        is_told_of_deletions = all(client.subscription.selects(("deleted", name)) for name in client.state)
        known = client.state if is_told_of_deletions else {n: v for n, v in client.state.items() if n in newest}
        assert known == newest
        missing = {seq for first, last in client.gaps for seq in range(first, last + 1)}
        owed = [e for e in selected if e.seq > client.started_at and e.seq not in missing]
        heard = set(client.seqs) - missing
        told = {e.seq for e in owed if not isinstance(e, Control) and e.seq <= client.newer.get(e.device_id, 0)}
        if client.subscription.mode == "every":
            assert heard | told == {entry.seq for entry in owed}
            return
        assert {e.seq for e in owed if isinstance(e, Control)} <= heard
        if not client.was_cut:  # what was merged into a change behind the cursor is not counted again
            due = (entry for entry in owed if not isinstance(entry, Control) and entry.seq not in told)
            counts = Counter(entry.device_id for entry in due)
            for name in counts:  # of a device that is no more, nothing comes to one who is not told so
                if client.subscription.selects(("deleted", name)) or ("deleted", name) not in {
                    entry.topic for entry in self.stream.log
                }:
                    assert client.counted[name] == counts[name]
            assert client.counted <= counts


TestFeedsAgainstTheLog = FeedsAgainstTheLog.TestCase
TestFeedsAgainstTheLog.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)


def test_what_a_client_is_handed_late_and_merged_is_counted_as_that() -> None:
    stream = a_stream("a", "b")
    deliveries = stream.router.deliveries
    quick, slow = a_client(stream, EVERYTHING), a_client(stream, EVERYTHING)
    slow.feed.sender.pause()
    for number in range(3):
        stream.change("a", b"%d" % number)
    assert (deliveries.made, deliveries.merged) == (3, 0), "the quick one has its own, the slow one nothing yet"
    slow.feed.sender.resume()
    assert (len(quick.heard()), len(slow.heard())) == (3, 1)
    assert (deliveries.made, deliveries.merged) == (4, 2)
