"""Probes of those who run the server: yes or no, to everybody, and nothing else."""

from pathlib import Path

import httpx
import pytest

from tests.credentials import add_key
from tests.running import ROOT
from twincast.app import create_app
from twincast.errors import JournalUnavailable
from twincast.journal.memory import MemoryJournal
from twincast.settings import Settings
from twincast.testing import Server

PATHS = ["/healthz", "/readyz"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("host", ["localhost", "10.1.2.3:8000", "evil.example", ""])
def test_a_probe_needs_no_credential_and_no_name(tmp_path: Path, edge: str, path: str, host: str) -> None:
    journal = tmp_path / "journal.db"
    add_key(journal, read=["*"])
    with Server(f"sqlite:{journal}", edge=edge) as server:
        for method in ("GET", "HEAD"):
            answer = httpx.request(method, f"{server.url}{path}", headers={"Host": host} if host else {})
            assert (answer.status_code, answer.text) == (200, "yes\n" if method == "GET" else "")
            assert answer.headers["content-type"].startswith("text/plain")
        assert httpx.get(f"{server.url}/api/status").status_code == 401


@pytest.mark.parametrize("path", PATHS)
async def test_a_probe_is_answered_to_strangers_who_get_nothing_else(path: str) -> None:
    app = create_app(Settings(journal="memory:"))
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, client=("203.0.113.5", 4_000))
        async with httpx.AsyncClient(transport=transport, base_url="http://10.1.2.3") as stranger:
            assert (await stranger.get(path)).text == "yes\n"
            assert (await stranger.get("/api/status")).status_code == 403


def test_a_server_that_stores_nothing_is_alive_and_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    with Server() as server:
        problem = JournalUnavailable("the disk is full, and /srv/journal.db says so")
        monkeypatch.setattr(MemoryJournal, "problem", problem)
        answer = httpx.get(f"{server.url}/readyz")
        assert (answer.status_code, answer.text) == (503, "no\n")
        assert httpx.get(f"{server.url}/healthz").text == "yes\n"
        monkeypatch.undo()
        assert httpx.get(f"{server.url}/readyz").text == "yes\n"


async def test_an_application_that_has_not_started_is_not_ready() -> None:
    transport = httpx.ASGITransport(create_app(Settings(journal="memory:")))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert (await client.get("/readyz")).status_code == 503


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_a_probe_only_asks(method: str) -> None:
    with Server() as server:
        assert httpx.request(method, f"{server.url}/healthz").status_code in {404, 405}


def test_the_image_asks_for_what_is_there() -> None:
    assert "/healthz" in (ROOT / "deploy" / "healthcheck.py").read_text()
