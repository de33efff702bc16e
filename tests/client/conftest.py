"""Fixtures of the tests of the clients."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.node_client import NodeClient, node_client
from twincast.testing import Proxy, Server


@pytest.fixture(scope="module")
def process() -> Iterator[NodeClient]:
    """One Node process for the tests of a module."""
    with node_client() as process:
        yield process


@pytest.fixture
def wrongs() -> set[str]:
    """What must not happen to a client: a rejection that is left over, a callback that raised."""
    return {"unhandled", "reported"}


@pytest.fixture
def client(process: NodeClient, wrongs: set[str]) -> Iterator[NodeClient]:
    """A JavaScript client; whatever it went through, nothing is wrong and nothing is kept alive."""
    process.events = []
    yield process
    process.do("call", method="close")
    assert [event for event in process.events if wrongs & event.keys()] == []
    assert process.timers == 0, "a client that was closed keeps nothing alive"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(f"sqlite:{tmp_path / 'journal.db'}") as server:
        yield server


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.port) as proxy:
        yield proxy
