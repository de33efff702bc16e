"""At most so often a second: what comes in a throttle window is merged, and sent at its end."""

from tests.delivery.clients import Client, a_client, a_stream, selecting
from tests.fakes import CommittingStream


def test_deletions_of_ever_new_devices_wait_in_a_throttled_group_only_up_to_a_bound() -> None:
    stream = a_stream()
    client = a_client(stream, selecting("*", max_hz=0.01))
    for number in range(2_000):
        stream.change(f"d{number}", b"1")
        stream.delete(f"d{number}")
    assert len(client.seqs()) > 1_000, "what cannot be merged goes before its time"


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


def test_a_client_that_joins_between_two_flushes_gets_no_entry_twice_and_misses_none() -> None:
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


def test_the_timer_of_a_throttled_group_ends_with_it() -> None:
    stream = CommittingStream()
    feed = a_client(stream, selecting("a", max_hz=0.01)).feed
    for number in range(1, 100):
        stream.change("a", b"1")
        stream.change("a", b"2")
        assert len(stream.timers) == 1, "one group, one timer"
        feed.change(selecting("a", max_hz=0.01 + number / 1e7), lambda: None)
    feed.close()
    assert (len(stream.timers), len(stream.router)) == (0, 0)


def test_an_idle_group_has_no_timer_and_its_next_entry_goes_at_once() -> None:
    stream = CommittingStream()
    client = a_client(stream, selecting("a", max_hz=10))
    assert stream.timers == []
    stream.change("a", b"1")
    assert (client.seqs(), len(stream.timers)) == ([1], 1)
    stream.pass_time(0.1)
    assert stream.timers == [], "the window has ended, and nothing waits"
    stream.change("a", b"2")
    assert client.seqs() == [2]


def test_a_command_in_a_window_does_not_make_it_longer() -> None:
    stream = CommittingStream()
    client = a_client(stream, selecting("a", max_hz=10))
    stream.change("a", b"1")
    stream.pass_time(0.06)
    stream.command("a")
    stream.change("a", b"2")
    assert client.seqs() == [1, 2]
    stream.pass_time(0.05)
    assert client.seqs() == [3]
