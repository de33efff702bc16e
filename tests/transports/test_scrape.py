"""Who is told the server's numbers: its own machine, and administrators of all of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.credentials import add_key, bearer
from twincast.app import create_app
from twincast.settings import Settings
from twincast.testing import Server

ORIGIN = "https://app.example.org"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scrape") / "journal.db"


@pytest.fixture(scope="module")
def keys(path: Path) -> dict[str, dict[str, str]]:
    grants: dict[str, Any] = {"admin": {"admin": ["*"]}, "lab": {"admin": ["lab/*"]}, "reader": {"read": ["*"]}}
    return {name: bearer(add_key(path, name, **grant)) for name, grant in grants.items()}


@pytest.fixture(scope="module")
def server(path: Path, keys: dict[str, Any]) -> Iterator[Server]:
    with Server(f"sqlite:{path}", allow_origin=(ORIGIN,)) as server:
        yield server


def metrics(server: Server, **headers: str) -> httpx.Response:
    return httpx.get(f"{server.url}/metrics", headers={name.replace("_", "-"): text for name, text in headers.items()})


def test_a_program_on_this_machine_needs_no_credential(server: Server) -> None:
    answer = metrics(server)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "header", ["X-Forwarded-For", "X-Forwarded-Proto", "Forwarded", "Via", "X-Real-IP", "X-Forwarded-Host"]
)
def test_what_somebody_passed_on_is_not_of_this_machine(
    server: Server, keys: dict[str, dict[str, str]], header: str
) -> None:
    passed_on = {header: "127.0.0.1"}
    assert metrics(server, **passed_on).status_code == 401
    assert metrics(server, **passed_on, **keys["reader"]).status_code == 403
    assert metrics(server, **passed_on, **keys["lab"]).status_code == 403
    assert metrics(server, **passed_on, **keys["admin"]).status_code == 200


def test_behind_a_proxy_nothing_that_comes_from_it_is_of_this_machine_whatever_it_says(
    path: Path, keys: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    other = tmp_path / "journal.db"
    admin = bearer(add_key(other, "admin", admin=["*"]))
    with Server(f"sqlite:{other}", behind_tls_proxy=True) as server:
        assert metrics(server).status_code == 401
        assert metrics(server, **admin).status_code == 200


@pytest.mark.parametrize(
    ("peer", "status"), [("192.168.1.5", 401), ("2001:db8::5", 401), ("::1", 200), ("127.9.9.9", 200)]
)
async def test_another_machine_needs_a_key(
    path: Path, keys: dict[str, Any], tmp_path: Path, peer: str, status: int
) -> None:
    other = tmp_path / "journal.db"
    admin = bearer(add_key(other, "admin", admin=["*"]))
    app = create_app(Settings(journal=f"sqlite:{other}"))
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, client=(peer, 40_000))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
            assert (await client.get("/metrics")).status_code == status
            assert (await client.get("/metrics", headers=admin)).status_code == 200
            assert (await client.get("/metrics", headers={"Authorization": "Bearer twc_00000000_x"})).status_code == 401


def test_what_a_proxy_asks_without_a_word_by_the_name_of_others_is_not_of_this_machine(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    admin = bearer(add_key(path, "admin", admin=["*"]))
    with Server(f"sqlite:{path}", allow_host=("lab.example.org",)) as server:
        for host, status in (("lab.example.org", 401), ("localhost:80", 200), ("[::1]:8000", 200), ("127.0.0.1", 200)):
            assert metrics(server, Host=host).status_code == status, host
        assert metrics(server, Host="lab.example.org", **admin).status_code == 200


def test_whoever_asks_without_end_is_held_to_what_one_may_read(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    add_key(path, read=["*"])
    with Server(f"sqlite:{path}", rate_updates_per_s=10) as server, httpx.Client() as client:
        answers = (client.get(f"{server.url}/metrics") for _ in range(10_000))
        refused = next(answer for answer in answers if answer.status_code != 200)
        assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
        assert httpx.get(f"{server.url}/readyz").status_code == 200


def test_without_a_login_only_this_machine_is_told(tmp_path: Path) -> None:
    with Server() as server:
        assert metrics(server).status_code == 200
        assert metrics(server, Via="1.1 somewhere").status_code == 403


def test_no_page_of_another_origin_reads_it(server: Server) -> None:
    assert metrics(server, Origin="https://evil.example").status_code == 403
    listed = metrics(server, Origin=ORIGIN)
    assert "access-control-allow-origin" not in listed.headers
    preflight = httpx.options(
        f"{server.url}/metrics",
        headers={"Origin": ORIGIN, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "x"},
    )
    assert "access-control-allow-origin" not in preflight.headers
    assert metrics(server, Host="evil.example").status_code == 403


def test_methods_are_those_of_what_is_read(server: Server) -> None:
    head = httpx.head(f"{server.url}/metrics")
    assert (head.status_code, head.content) == (200, b"")
    options = httpx.options(f"{server.url}/metrics")
    assert (options.status_code, options.headers["allow"]) == (204, "GET, HEAD, OPTIONS")
    for method in ("POST", "PUT", "DELETE"):
        refused = httpx.request(method, f"{server.url}/metrics")
        assert (refused.status_code, refused.json()["code"]) == (405, "method_not_allowed")


def test_it_is_below_the_prefix_of_a_server_that_has_one() -> None:
    with Server(root_path="/twin") as server:
        assert httpx.get(f"{server.url}/twin/metrics").status_code == 200


def test_the_document_describes_it(server: Server) -> None:
    operation = httpx.get(f"{server.url}/openapi.json").json()["paths"]["/metrics"]["get"]
    assert operation["operationId"] == "metrics"
    assert list(operation["responses"]["200"]["content"]) == ["text/plain"]
