"""The application as a part of other people's programs, and what it does when one of its own parts fails."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI
from websockets.sync.client import connect

from tests.conftest import StartServer
from tests.running import DEADLINE_S, ROOT, ServerProcess, free_port
from twincast.app import App, create_app
from twincast.client import Rest
from twincast.errors import JournalUnusable
from twincast.lifespan import HUB_DIED
from twincast.settings import Settings
from twincast.testing import Server
from twincast.testing.keys import add_key

HERE = "http://127.0.0.1"


def client(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=HERE)


def memory_app() -> App:
    return create_app(Settings(journal="memory:"))


async def test_routes_of_ones_own_can_be_added() -> None:
    app = memory_app()

    @app.get("/mine")
    async def mine() -> dict[str, int]:
        return {"answer": 42}

    async with app.router.lifespan_context(app), client(app) as http:
        assert (await http.get("/mine")).json() == {"answer": 42}
        assert (await http.get("/api/status")).json()["ok"] is True


def empty(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


async def test_a_second_run_knows_only_the_keys_of_its_own_file(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    app = create_app(Settings(journal=f"sqlite:{path}"))

    async def status_of(key: str) -> int:
        async with client(app) as http:
            answer = await http.get("/api/data", headers={"authorization": f"Bearer {key}"})
            return answer.status_code

    first = add_key(path, "first", read=["*"])
    async with app.router.lifespan_context(app):
        assert await status_of(first) == 200
    empty(tmp_path)
    second = add_key(path, "second", read=["*"])  # in a file whose keyring has the same version
    async with app.router.lifespan_context(app):
        assert (await status_of(first), await status_of(second)) == (401, 200)


async def test_it_can_be_mounted_below_a_prefix() -> None:
    inner, outer = memory_app(), FastAPI()
    outer.mount("/live", inner)
    async with inner.router.lifespan_context(inner), client(outer) as http:
        stored = await http.post("/live/api/data", json={"device_id": "lamp", "value": 1})
        assert stored.json()["event"]["seq"] == 1
        assert "lamp" in (await http.get("/live/api/data")).json()["data"]
        refused = await http.post("/live/api/data", json={"device_id": "lamp"})
        assert (refused.status_code, refused.json()["code"]) == (422, "validation_failed")
        assert (await http.get("/live/openapi.json")).json()["servers"] == [{"url": "/live"}]


NAMES = ["lamp", "lab/lamp", "a b", "%2F", "..", "é", "live", "a/live/b"]


@pytest.mark.parametrize("prefix", ["/live", "/a b/live", "/api/data"])
async def test_a_device_is_deleted_below_a_prefix_whatever_its_name(prefix: str) -> None:
    inner, outer = memory_app(), FastAPI()
    outer.mount(prefix, inner)
    async with inner.router.lifespan_context(inner), client(outer) as http:
        for name in NAMES:
            await http.post(f"{prefix}/api/data", json={"device_id": name, "value": 1})
            path = f"{quote(prefix)}/api/data/{quote(name, safe='').replace('.', '%2e')}"
            deleted = await http.delete(path)
            assert (deleted.status_code, deleted.json()["event"]["device_id"]) == (200, name)
        assert (await http.get(f"{prefix}/api/data")).json()["data"] == {}


async def test_a_server_that_tells_no_raw_path_deletes_too() -> None:
    app = memory_app()

    async def without_raw_path(scope: Any, receive: Any, send: Any) -> None:
        await app({**{key: value for key, value in scope.items() if key != "raw_path"}, "root_path": ""}, receive, send)

    http = httpx.AsyncClient(transport=httpx.ASGITransport(without_raw_path), base_url=HERE)
    async with app.router.lifespan_context(app), http:
        for name in ("lab/lamp", "a b"):
            await http.post("/api/data", json={"device_id": name, "value": 1})
            assert (await http.delete(f"/api/data/{quote(name, safe='')}")).status_code == 200


def test_a_device_is_deleted_under_a_servers_root_path(server_process: StartServer) -> None:
    server = server_process(edge="portable", UVICORN_ROOT_PATH="/live")
    assert server.get("/openapi.json")["servers"] == [{"url": "/live"}]
    server.post("/api/data", {"device_id": "lab/../lamp", "value": 1})
    answer = httpx.delete(f"{server.url}/api/data/lab%2F..%2Flamp")
    assert (answer.status_code, answer.json()["event"]["device_id"]) == (200, "lab/../lamp")


async def test_the_journal_is_opened_and_closed_with_the_lifespan(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    for seq in (1, 2):
        app = create_app(Settings(journal=f"sqlite:{path}"))
        async with app.router.lifespan_context(app), client(app) as http:
            stored = await http.post("/api/data", json={"device_id": "lamp", "value": seq})
            assert stored.json()["event"]["seq"] == seq
        assert not path.with_name("journal.db-wal").exists(), "the file stands alone after a clean end"


async def test_a_second_server_on_the_same_journal_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path / 'journal.db'}"
    first, second = create_app(Settings(journal=url)), create_app(Settings(journal=url))
    async with first.router.lifespan_context(first):
        with pytest.raises(JournalUnusable, match="in use by another server"):
            async with second.router.lifespan_context(second):
                raise AssertionError("two servers would give out the same positions")


async def test_a_request_before_the_start_says_what_is_missing() -> None:
    async with client(memory_app()) as http:
        answer = await http.get("/api/status")
    assert (answer.status_code, answer.json()["code"]) == (503, "not_started")


@pytest.mark.parametrize(
    ("error", "has_traceback"),
    [
        ("ValueError('the log has a gap')", True),
        ("JournalUnusable('the log is of a newer one')", False),
        ("ExceptionGroup('tasks', [JournalUnusable('the log is of a newer one')])", False),
        ("ExceptionGroup('tasks', [JournalUnusable('one'), ValueError('another')])", True),
    ],
)
async def test_a_server_whose_state_nobody_drives_ends(error: str, *, has_traceback: bool) -> None:
    program = f"""
import uvicorn
from twincast.app import create_app
from twincast.errors import JournalUnusable
from twincast.hub.hub import Hub
from twincast.settings import Settings

async def broken(self):
    raise {error}

Hub.run = broken
uvicorn.run(create_app(Settings(journal="memory:")), port={free_port()})
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    printed, _ = await asyncio.wait_for(process.communicate(), DEADLINE_S)
    assert process.returncode == HUB_DIED
    assert b"the state is no longer driven" in printed
    assert (b"Traceback" in printed) == has_traceback
    assert has_traceback or b"the log is of a newer one" in printed


@pytest.mark.parametrize("asset", ["/pages/home.css", "/pages/vendor/redoc.standalone.js", "/dashboard/app.js"])
def test_the_pages_assets_come_from_the_package(server: ServerProcess, asset: str) -> None:
    with httpx.Client() as http:
        response = http.get(server.url + asset)
    assert response.status_code == 200
    assert response.headers["x-content-type-options"] == "nosniff"


def test_uvicorn_says_why_it_cannot_start_without_a_traceback(tmp_path: Path) -> None:
    """As a user of `uvicorn main:app` sees it."""
    path = tmp_path / "letter.txt"
    path.write_text("no database " * 100)
    ended = subprocess.run(
        [sys.executable, "-m", "uvicorn", "main:app", "--port", str(free_port())],
        cwd=ROOT,
        env={**os.environ, "TWINCAST_JOURNAL": f"sqlite:{path}"},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert ended.returncode == 3
    assert f"{path} is not a journal" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_reloading_server_serves_the_contract(server_process: StartServer) -> None:
    """`uvicorn main:app --reload`, as the original was run."""
    server = server_process("memory:", edge="reload")
    assert server.post("/api/data", {"device_id": "lamp", "value": 1}).json()["ok"] is True
    assert server.get("/api/status")["edge"] == "portable"


@pytest.mark.parametrize(("edge", "name"), [("picows", "picows"), ("named", "picows"), ("portable", "portable")])
def test_the_status_says_which_edge_serves(server_process: StartServer, edge: str, name: str) -> None:
    server = server_process("memory:", edge=edge)
    for _ in range(2):  # before anybody was served, and behind that
        assert server.get("/api/status")["edge"] == name
        with connect(server.ws_url) as socket:
            socket.recv(timeout=DEADLINE_S)


def test_an_edge_that_was_loaded_and_not_named_is_not_the_one_that_serves() -> None:
    with Server(edge="portable") as server:
        server._app.parts.edge.name = "picows"  # as where something else has loaded it
        with connect(server.ws_url) as socket:
            socket.recv(timeout=DEADLINE_S)
            assert Rest(server.url).status()["edge"] == "portable"
