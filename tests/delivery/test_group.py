"""Watchers of equal subscriptions share a group and its casts."""

from msgspec import Raw

from tests.delivery.clients import a_client, a_stream, selecting
from twincast.core.model import DataUpdate


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
