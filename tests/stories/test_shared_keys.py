"""Two servers on one log have the same keys: what is added, exchanged or revoked anywhere holds at both."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.credentials import bearer
from tests.running import eventually
from twincast.access.pairing import CODE_LIFE_S, CODES_MAX, make_pairing
from twincast.cluster.key_store import KeyStore
from twincast.core.audit import Actor
from twincast.core.rights import Rights
from twincast.hub.hub import system_now_utc
from twincast.testing import Nats, Server

ACTOR = Actor("local:me", "here")


@pytest.fixture(scope="module")
def nats() -> Iterator[Nats]:
    with Nats() as nats:
        yield nats


@pytest.fixture
def servers(nats: Nats, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[list[Server]]:
    log = f"keys{abs(hash(request.node.name))}"
    urls = [nats.url(log, copy=str(tmp_path / f"{name}.db"), as_=name) for name in ("n1", "n2")]
    with Server(urls[0]) as first, Server(urls[1]) as second:
        yield [first, second]


def status_of(server: Server, secret: str) -> int:
    return httpx.get(f"{server.url}/api/data", headers=bearer(secret)).status_code


def until_is(server: Server, secret: str, status: int) -> None:
    eventually(lambda: status_of(server, secret) == status, f"the key gets {status}")


def actions_at(server: Server, secret: str) -> list[str]:
    answer = httpx.get(f"{server.url}/api/audit", headers=bearer(secret))
    return [record["action"] for record in answer.json().get("records", [])]


def test_a_key_is_good_at_both_and_its_end_closes_what_is_open_at_both(servers: list[Server]) -> None:
    secret = servers[0].add_key("a", read=["*"], publish=["*"])
    assert status_of(servers[0], secret) == 200
    until_is(servers[1], secret, 200)
    assert status_of(servers[1], "twc_0_wrong") == 401
    with connect(servers[1].ws_url, additional_headers=bearer(secret)) as websocket:
        websocket.recv()
        servers[0].revoke_key("a")
        assert status_of(servers[0], secret) == 401
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                websocket.recv(timeout=10)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 4502
    assert status_of(servers[1], secret) == 401


def test_a_code_is_good_at_each_once_in_all_and_its_key_at_all(servers: list[Server]) -> None:
    boss = servers[0].add_key("boss", admin=["*"])
    rights = Rights.of({"read": ["*"]})
    pairing, code = make_pairing("lab/fan", rights, now_s=int(time.time()), rate_per_s=None, lives_s=None)
    with KeyStore(servers[0]._settings.journal).open() as access:
        access.pair(pairing, system_now_utc(), ACTOR, life_s=CODE_LIFE_S, waiting_max=CODES_MAX)
    eventually(lambda: "pair" in actions_at(servers[1], boss), "the code is known")
    paired = httpx.post(f"{servers[1].url}/api/pair", json={"code": code})
    assert paired.status_code == 200, paired.text
    secret = paired.json()["token"]
    assert status_of(servers[1], secret) == 200
    until_is(servers[0], secret, 200)
    again = httpx.post(f"{servers[0].url}/api/pair", json={"code": code})
    assert (again.status_code, again.json()["code"]) == (401, "credential_expired")


def test_the_audit_trail_is_the_same_at_both_and_names_the_server(servers: list[Server]) -> None:
    boss = servers[0].add_key("boss", admin=["*"], command=["*"])
    until_is(servers[1], boss, 403)
    for number, server in enumerate(servers):
        order = {"target": f"fan{number}", "command": "on"}
        httpx.post(f"{server.url}/api/control", json=order, headers=bearer(boss)).raise_for_status()
    eventually(lambda: all(len(actions_at(server, boss)) == 3 for server in servers), "the copies have it")
    trails = [httpx.get(f"{server.url}/api/audit", headers=bearer(boss)).json()["records"] for server in servers]
    assert trails[0] == trails[1]
    said = [(record["action"], record["target"], record["server"]) for record in trails[0]]
    assert said[:2] == [("command", "fan1", "n2"), ("command", "fan0", "n1")]
    assert said[2][0] == "keys add" and said[2][2] == ""


def test_a_server_that_starts_anew_without_its_copy_has_the_keys(servers: list[Server], tmp_path: Path) -> None:
    secret = servers[0].add_key("a", read=["*"])
    servers[1].stop()
    for path in tmp_path.glob("n2.db*"):
        path.unlink()
    servers[0].revoke_key("a")
    good = servers[0].add_key("b", read=["*"])
    servers[1].start()
    assert status_of(servers[1], secret) == 401
    until_is(servers[1], good, 200)
    assert httpx.get(f"{servers[1].url}/api/status", headers=bearer(good)).json()["ok"]
