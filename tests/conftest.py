"""Fixtures that every test may use."""

import importlib
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from playwright.sync_api import Browser

from tests.browser import open_browser
from tests.fakes import CountedMatches
from tests.running import DEADLINE_S, ROOT, ServerProcess, wait_for_answers
from tests.tools import lacking
from twincast.testing import Nats

# Whoever runs the tests in the background has Ctrl-C ignored, and the programs under test would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
# No test asserts a time, by default neither: how long an example takes is the machine's mood.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
wait_for_answers(DEADLINE_S)

StartServer = Callable[..., ServerProcess]
JournalUrl = Callable[[str], str]
LONG = (
    "test_schemathesis",
    "test_docs",
    "test_crash",
    "test_elsewhere",
    "test_restart",
    "test_soak",
    "test_power_cut",
    "test_first_hour",
    "test_nats",
    "test_cluster",
    "test_shared_log",
    "test_workers",
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


@pytest.fixture(scope="session")
def nats() -> Iterator[Nats]:
    """One NATS for all tests of a session, each of which has a log of its own there. No test may end it."""
    with Nats() as nats:
        yield nats


@pytest.fixture(scope="module")
def shared_log(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
    """Return the URL of a shared log that all tests of a module have. NATS is started where it is asked for."""

    def url() -> str:
        nats: Nats = request.getfixturevalue("nats")
        return nats.url(f"test-{token_hex(8)}", copy=tmp_path_factory.mktemp("shared") / "copy.db")

    return url


@pytest.fixture
def journal_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[JournalUrl]:
    """Return where the test's journal of a kind is: "memory", "sqlite" or "jetstream". The same at each call."""
    log, asked = f"test-{token_hex(8)}", set[str]()

    def url(kind: str) -> str:
        asked.add(kind)
        if kind == "jetstream":
            nats: Nats = request.getfixturevalue("nats")
            return nats.url(log, copy=tmp_path / FILES[kind])
        return "memory:" if kind == "memory" else f"sqlite:{tmp_path / FILES[kind]}"

    yield url
    if "jetstream" in asked:
        with suppress(RuntimeError):  # the test opened none
            request.getfixturevalue("nats").delete_stream(log)


FILES = {"sqlite": "journal.db", "jetstream": "server.db"}
"""The file in `tmp_path` that has the log, or the server's copy of it, by the kind of journal that lasts."""


@pytest.fixture(params=list(FILES))
def durable_kind(request: pytest.FixtureRequest) -> str:
    """Each kind of journal that lasts."""
    return str(request.param)


class Kit(NamedTuple):
    """On what the kit's server runs: one of the two edges, and one of the journals that last."""

    edge: str
    kind: str


KITS = [Kit("picows", "sqlite"), Kit("portable", "sqlite"), Kit("picows", "jetstream")]
"""The edges know nothing of journals, so not each with each: what is promised to clients holds on all of these."""


@pytest.fixture(params=KITS, ids="-".join)
def kit(request: pytest.FixtureRequest) -> Kit:
    """Each edge, and each durable journal."""
    found: Kit = request.param
    return found


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


@pytest.fixture(scope="session")
def compiled() -> ModuleType:
    """Return the compiled module, also where TWINCAST_PURE has the package do without."""
    try:
        module = importlib.import_module("twincast.wire.compiled")
    except ImportError:
        lacking("the compiled module is not built for this Python: scripts/compile does that")
    if Path(str(module.__file__)).stat().st_mtime < (ROOT / "twincast/wire/compiled.pyx").stat().st_mtime:
        lacking("the compiled module is older than its source: scripts/compile")
    return module
