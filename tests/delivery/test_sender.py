"""What goes out to one client: in order, and only while its connection takes it."""

import pytest
from msgspec import Raw

from tests.delivery.clients import CAST_OF_PONG, EVERYTHING, PLENTY_BYTES, Client, a_client, a_stream, selecting
from tests.fakes import CommittingStream, RecordingConnection, StallingConnection
from twincast.core.model import DataUpdate
from twincast.core.subscription import Mode, Subscription, rules_of
from twincast.delivery.cast import Cast
from twincast.delivery.outbox import EveryOutbox, Outbox
from twincast.delivery.sender import Sender
from twincast.delivery.snapshots import Page
from twincast.errors import FellBehind


def test_a_slow_client_is_sent_the_deletion_of_a_device_and_not_its_readings_before() -> None:
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


def test_a_slow_client_is_sent_the_newest_of_a_device_that_was_made_anew() -> None:
    stream = a_stream("a")
    client = a_client(stream, EVERYTHING)
    client.feed.sender.pause()
    stream.delete("a")
    stream.change("a", b"7")
    client.feed.sender.resume()
    [change] = client.heard()
    assert (change["type"], change["seq"], change["merged"]) == ("data_update", 3, 2)


@pytest.mark.parametrize("max_hz", [None, 10.0])
def test_a_client_without_deletions_is_sent_nothing_of_a_deleted_device(max_hz: float | None) -> None:
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


class DecidingFeed:
    """What a sender needs of its feed: goes on by draining, and notes what overflowed."""

    def __init__(self, max_bytes: int = PLENTY_BYTES) -> None:
        self.stream = CommittingStream()
        self.connection = RecordingConnection()
        self.overflowed_by: list[Cast] = []
        self.outboxes = 0
        self.sender = Sender(self.connection.write, self, self.stream, max_bytes=max_bytes)

    cursor = 0

    def new_outbox(self) -> Outbox:
        self.outboxes += 1
        return EveryOutbox()

    def falls_behind(self) -> bool:
        return False

    def keeps_up(self) -> None:
        """Tell nobody: there is no group."""

    def overflowed(self, cast: Cast) -> None:
        self.overflowed_by.append(cast)

    def go_on(self) -> None:
        self.sender.drain()

    def texts(self) -> list[bytes]:
        return self.connection.taken()


def reply(text: bytes) -> Cast:
    return Cast((text,))


def test_what_is_offered_goes_straight_through_and_needs_no_queue() -> None:
    feed = DecidingFeed()
    cast = reply(b"1")
    feed.sender.offer(cast)
    assert feed.connection.casts == [cast]
    assert (feed.outboxes, feed.sender.is_through, feed.sender.is_behind, feed.sender.waiting_bytes) == (
        0,
        True,
        False,
        0,
    )


@pytest.mark.parametrize(("stop", "go_on"), [("pause", "resume"), ("hold", "release")])
def test_a_full_connection_and_a_throttle_window_each_queue_until_they_end(stop: str, go_on: str) -> None:
    feed = DecidingFeed()
    getattr(feed.sender, stop)()
    feed.sender.offer(reply(b"1"))
    feed.sender.offer(reply(b"2"))
    assert (feed.texts(), feed.sender.is_behind, feed.sender.is_through) == ([], True, False)
    getattr(feed.sender, go_on)()
    feed.sender.offer(reply(b"3"))
    assert (feed.texts(), feed.sender.is_behind, feed.outboxes) == ([b"1", b"2", b"3"], False, 1)


def test_the_causes_of_waiting_are_independent() -> None:
    feed = DecidingFeed()
    feed.sender.pause()
    feed.sender.hold()
    feed.sender.offer(reply(b"1"))
    feed.sender.resume()
    assert feed.texts() == [], "it is held"
    feed.sender.pause()
    feed.sender.release()
    assert feed.texts() == [], "it is paused"
    feed.sender.resume()
    assert feed.texts() == [b"1"]


def test_pages_go_before_what_is_queued_though_the_sender_is_held() -> None:
    feed = DecidingFeed()
    feed.sender.hold()
    feed.sender.offer(reply(b"pong"))
    feed.sender.start_pages(iter([Page(reply(b"hello"), False, {}), Page(reply(b"snapshot"), True, {})]))
    assert feed.sender.has_pages
    feed.sender.drain()
    assert (feed.texts(), feed.sender.has_pages) == ([b"hello", b"snapshot"], False)
    feed.sender.release()
    assert feed.texts() == [b"pong"]


def test_an_outbox_above_its_bound_is_the_feeds_to_decide() -> None:
    feed = DecidingFeed(max_bytes=100)
    feed.sender.pause()
    feed.sender.offer(reply(b"x" * 30))
    assert feed.overflowed_by == []
    last = reply(b"y" * 30)
    feed.sender.offer(last)
    assert feed.overflowed_by == [last]


def test_queued_replies_can_be_sent_though_the_connection_is_full() -> None:
    feed = DecidingFeed()
    feed.sender.pause()
    feed.sender.offer(feed.stream.drafted([DataUpdate("a", Raw(b"1"), "", "rest")]))
    feed.sender.offer(reply(b"ack"))
    feed.sender.send_replies()
    assert feed.texts() == [b"ack"]


def test_a_closed_sender_writes_and_queues_nothing_whatever_it_is_told() -> None:
    feed = DecidingFeed()
    feed.sender.pause()
    feed.sender.offer(reply(b"1"))
    feed.sender.close()
    for call in (feed.sender.resume, feed.sender.pause, feed.sender.hold, feed.sender.drain, feed.sender.send_replies):
        call()
        feed.sender.offer(reply(b"2"))
    assert (feed.texts(), feed.sender.is_behind, feed.sender.is_closed) == ([], False, True)
