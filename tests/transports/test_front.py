"""The chain in front of the framework: each link by itself, and their order."""

from collections.abc import Iterator, MutableMapping
from typing import Any

import httpx
import pytest

from tests.transports.problems import assert_problem
from twincast.app import create_app
from twincast.settings import Settings
from twincast.testing import Server
from twincast.transports.front import Place


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.mark.parametrize("kind", ["http", "websocket", "lifespan"])
@pytest.mark.parametrize(("own_path", "root_path", "path"), [("", "", "/x"), ("/a", "", "/a/x"), ("", "/a", "/a/x")])
async def test_a_connection_is_placed_and_handed_to_the_chain_of_its_kind(
    kind: str, own_path: str, root_path: str, path: str
) -> None:
    reached: list[tuple[str, Any]] = []

    def link(name: str) -> Any:
        async def serve(scope: MutableMapping[str, Any], _receive: object, _send: object) -> None:
            reached.append((name, scope.get("path_here")))

        return serve

    place = Place(link("http"), link("websocket"), link("lifespan"), own_path)
    scope = {"type": kind, "root_path": root_path, "path": path}
    await place(scope, link("receive"), link("send"))
    assert reached == [(kind, None if kind == "lifespan" else "/x")]


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Host": "127.0.0.1.evil.example"},
    ],
)
@pytest.mark.parametrize("path", ["/api/status", "/api/data", "/docs", "/dashboard"])
def test_foreign_names_and_pages_get_nothing(server: Server, path: str, headers: dict[str, str]) -> None:
    assert_problem(httpx.get(server.url + path, headers=headers), 403, "forbidden")


def test_the_same_origin_may_call(server: Server) -> None:
    headers = {"Origin": server.url, "Content-Type": "application/json"}
    body = '{"device_id":"d","value":1}'
    assert httpx.post(f"{server.url}/api/data", content=body, headers=headers).status_code == 200


async def test_a_header_that_decides_and_comes_twice_is_refused_before_anything_else() -> None:
    transport = httpx.ASGITransport(create_app(Settings(journal="memory:")))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        twice = [("Host", "localhost"), ("Host", "evil.example")]
        assert_problem(await http.get("/api/status", headers=twice), 400, "bad_message")
