"""Fixtures that every test may use."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.browser import open_browser
from tests.fakes import CountedMatches
from tests.running import ServerProcess

# Whoever runs the tests in the background has Ctrl-C ignored, and the programs under test would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

StartServer = Callable[..., ServerProcess]
LONG = (
    "test_schemathesis",
    "test_crash",
    "test_elsewhere",
    "test_restart",
    "test_soak",
    "test_power_cut",
    "test_first_hour",
)
"""Modules with tests of ten seconds and more. They come first, or a worker has one left when the others are done."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest first; the others stay in their order."""
    items.sort(key=lambda item: item.path.stem not in LONG)


@pytest.fixture
def server_process() -> Iterator[StartServer]:
    """Start servers: `server_process(journal="memory:", edge="picows", port=None)`; all end with the test."""
    started: list[ServerProcess] = []

    def start(journal: str = "memory:", **how: Any) -> ServerProcess:
        started.append(ServerProcess(journal, **how))
        return started[-1].ready()

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have clients come back soon, however often they were cut off."""
    monkeypatch.setattr("twincast.client.backoff.MAX_S", 0.2)


@pytest.fixture(params=["picows", "portable"])
def edge(request: pytest.FixtureRequest) -> str:
    """Each of the two WebSocket edges."""
    return str(request.param)


@pytest.fixture
def server(server_process: StartServer, tmp_path: Path) -> ServerProcess:
    """Run one durable server on the fast edge."""
    return server_process(f"sqlite:{tmp_path / 'journal.db'}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for the tests of a module."""
    with open_browser() as browser:
        yield browser


@pytest.fixture
def matches(monkeypatch: pytest.MonkeyPatch) -> CountedMatches:
    """Count how often names are held against patterns."""
    return CountedMatches(monkeypatch)
