"""Fixtures for pytest: a server, its clock, a network in front of it, and NATS. They end with the test.

The kit is imported where it is used: every pytest in an environment with twincast loads this module.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from twincast.testing import Clock, Nats, Proxy, Server


@pytest.fixture
def twincast_clock() -> Clock:
    """The clock of `twincast_server`, for the test to move."""
    from twincast.testing import Clock  # noqa: PLC0415

    return Clock()


@pytest.fixture
def twincast_server(twincast_clock: Clock) -> Iterator[Server]:
    """A server with a journal in memory."""
    from twincast.testing import Server  # noqa: PLC0415

    with Server(clock=twincast_clock) as server:
        yield server


@pytest.fixture
def twincast_proxy(twincast_server: Server) -> Iterator[Proxy]:
    """A network in front of `twincast_server`."""
    from twincast.testing import Proxy  # noqa: PLC0415

    with Proxy(twincast_server.port) as proxy:
        yield proxy


@pytest.fixture
def twincast_nats() -> Iterator[Nats]:
    """A NATS server of one node, for servers on one log."""
    from twincast.testing import Nats  # noqa: PLC0415

    with Nats() as nats:
        yield nats
