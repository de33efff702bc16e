"""Watchers of equal subscriptions share a group and its casts."""

import sys
from types import FrameType

import pytest
from msgspec import Raw

from tests.delivery.clients import Client, a_client, a_stream, selecting
from tests.fakes import CommittingStream
from twincast.core.model import DataUpdate
from twincast.delivery.cast import Cast
from twincast.errors import FellBehind


def test_equal_subscriptions_share_one_group_and_one_cast() -> None:
    stream = a_stream()
    first, second = (a_client(stream, selecting("lab/*", "x")) for _ in range(2))
    a_client(stream, selecting("other"))
    assert len(stream.router) == 2
    stream.cast(*(DataUpdate(name, Raw(b"1"), "", "rest") for name in ("x", "y", "lab/z")))
    [of_first], [of_second] = first.connection.casts, second.connection.casts
    assert of_first is of_second
    assert [entry.seq for entry in of_first.entries] == [1, 3]


def test_a_group_without_members_goes() -> None:
    stream = a_stream()
    clients = [a_client(stream, selecting(pattern)) for pattern in ("a", "a*", "*")]
    for client in clients:
        client.feed.close()
    assert len(stream.router) == 0
    stream.change("a", b"1")
    again = a_client(stream, selecting("a*"))
    stream.change("a", b"1")
    assert again.seqs() == [2]


def calls_of_a_cast(stream: CommittingStream, *names: str) -> int:
    """Return how many functions are called while a cast of some devices is offered."""
    cast = stream.drafted(DataUpdate(name, Raw(b"1"), "", "rest") for name in names)
    stream.state.apply_all(cast.entries)
    calls = 0

    def count(_frame: FrameType, event: str, _arg: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    sys.setprofile(count)
    try:
        stream.router.offer(cast)
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("max_hz", [None, 0.01])
def test_a_cast_costs_the_same_however_many_clients_are_behind(max_hz: float | None) -> None:
    names = [f"d{number}" for number in range(50)]
    calls: list[int] = []
    for count in (1, 1_000):
        stream = a_stream()
        behind = [a_client(stream, selecting("*", max_hz=max_hz)) for _ in range(count)]
        for client in behind:
            client.feed.sender.pause()
        for _ in range(2):
            stream.cast(*(DataUpdate(name, Raw(b"1"), "", "rest") for name in names))
            stream.pass_time(200)
        calls.append(calls_of_a_cast(stream, *names))
        for client in behind:
            client.feed.sender.resume()
        stream.pass_time(200)
        assert [len(client.heard()) for client in behind] == [50] * count
    assert calls[0] == calls[1]


def test_one_that_is_behind_has_a_check_only_when_it_may_be_above_its_bound() -> None:
    stream = a_stream()
    clients = [a_client(stream, selecting("*"), outbox_max_bytes=5_000 + number) for number in range(100)]
    for client in clients:
        client.feed.sender.pause()
    stream.command("a")
    _, few = calls_of_a_cast(stream, "a"), calls_of_a_cast(stream, "a")
    ended: list[Client] = []
    while len(ended) < 100:
        stream.command("a")
        ended = [client for client in clients if client.ended]
        for client in ended:
            assert isinstance(client.ended[0], FellBehind)
            client.feed.close()
        assert calls_of_a_cast(stream, "a") <= few
    assert len(stream.router) == 0


def test_clients_that_stall_and_catch_up_together_are_sent_the_very_same_casts() -> None:
    stream = a_stream()
    clients = [a_client(stream, selecting("*")) for _ in range(10)]
    for client in clients:
        client.feed.sender.pause()
    for _ in range(3):
        stream.cast(*(DataUpdate(name, Raw(b"1"), "", "rest") for name in "abc"))
    clients[9].feed.sender.offer(Cast((b'{"type":"pong"}',)))
    late = a_client(stream, selecting("*"))
    late.feed.sender.pause()
    for client in clients[:5]:
        client.feed.sender.resume()
    stream.change("a", b"2")
    for client in [*clients[5:], late]:
        client.feed.sender.resume()
    sent = [client.connection.casts for client in clients]
    assert all(casts == sent[0] for casts in sent[:5]) and all(casts == sent[5] for casts in sent[5:9])
    assert [client.seqs() for client in clients[:5]] == [[7, 8, 9, 10]] * 5
    assert [[m["merged"] for m in client.heard()] for client in clients[5:9]] == [[3, 3, 4]] * 4
    assert [m.get("seq", m["type"]) for m in clients[9].heard()] == [8, 9, "pong", 10]
    assert late.seqs() == [10]
