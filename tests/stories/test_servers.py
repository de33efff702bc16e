"""Several servers on one log, as their clients see them."""

import asyncio
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.conftest import StartServer
from tests.credentials import AUDIENCE, ISSUER, Issuer, bearer
from tests.running import DEADLINE_S, ServerProcess, eventually, eventually_async
from twincast.cluster.engine import Engine
from twincast.testing import Server

SERVICE_RESTART = 1012
CLIENTS, READINGS_AT_LEAST = 100, 60


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[Engine]:
    """Run a NATS server."""
    with Engine(tmp_path / "nats", asks_token=False) as engine:
        yield engine


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    """Return whom the servers of `pair` believe."""
    issuer = Issuer()
    (tmp_path / "issuer.pem").write_text(issuer.pem())
    return issuer


@pytest.fixture
def pair(nats: Engine, issuer: Issuer, tmp_path: Path, edge: str) -> Iterator[list[Server]]:
    """Run two servers on one log, which ask for a login."""
    login = {"jwt_key": str(tmp_path / "issuer.pem"), "jwt_issuer": ISSUER, "jwt_audience": AUDIENCE}
    how: dict[str, Any] = {**login, "identity_connections_max": 3, "rate_updates_per_s": 1, "edge": edge}
    with (
        Server(f"{nats.url}/lab?copy={tmp_path}/one.db&as=one", **how) as one,
        Server(f"{nats.url}/lab?copy={tmp_path}/two.db&as=two", **how) as two,
    ):
        token = bearer(issuer.token(twincast={"admin": ["*"]}))
        for server in (one, two):
            eventually(partial(sees_two, server, token), "they see each other")
        yield [one, two]


def cluster(server: Server, token: dict[str, str]) -> Any:
    return httpx.get(f"{server.url}/api/cluster", headers=token).raise_for_status().json()


def sees_two(server: Server, token: dict[str, str]) -> bool:
    return len(cluster(server, token)["servers"]) == 2


class Stream:
    """An event stream that was opened by a ticket, as an EventSource opens it."""

    def __init__(self, client: httpx.Client, server: Server, ticket: str, position: str | None = None) -> None:
        resumes = {} if position is None else {"Last-Event-ID": position}
        request = client.build_request(
            "GET", f"{server.url}/api/events?ticket={ticket}", headers={"Accept": "text/event-stream", **resumes}
        )
        self._answer = client.send(request, stream=True)
        self.status = self._answer.status_code
        self._lines = self._answer.iter_lines()

    def position(self) -> str:
        """Read on up to the next position."""
        return next(line.removeprefix("id: ") for line in self._lines if line.startswith("id: "))

    def ends(self) -> bool:
        """Read on to the end."""
        return all(True for _ in self._lines)

    def close(self) -> None:
        self._answer.close()


def test_a_ticket_of_one_server_opens_a_stream_at_another_and_the_stream_moves(
    pair: list[Server], issuer: Issuer
) -> None:
    one, two = pair
    token = bearer(issuer.token(twincast={"read": ["*"], "publish": ["*"]}))
    post = partial(httpx.post, headers=token)
    post(f"{one.url}/api/data", json={"device_id": "lamp", "value": 1}).raise_for_status()
    with httpx.Client(timeout=DEADLINE_S) as client:
        ticket = post(f"{one.url}/api/tickets", json={}).raise_for_status().json()["ticket"]
        first = Stream(client, two, ticket)
        assert first.status == 200
        assert Stream(client, one, ticket).status == 401, "it is used"
        assert Stream(client, two, ticket).status == 401
        second = Stream(client, one, ticket, first.position())
        assert second.status == 200
        assert first.ends(), "the newer stream ends the older"
        third = Stream(client, two, ticket, second.position())
        assert (third.status, second.ends()) == (200, True)
        third.close()
        polled = post(f"{two.url}/api/tickets", json={}).raise_for_status().json()["ticket"]
        assert client.get(f"{one.url}/api/events?ticket={polled}").json()["resumed"] is False
        assert client.get(f"{one.url}/api/events?ticket={polled}").status_code == 401


async def test_the_connections_and_updates_of_an_identity_count_over_both_servers(
    pair: list[Server], issuer: Issuer
) -> None:
    one, two = pair
    token = bearer(issuer.token(twincast={"read": ["*"], "publish": ["*"], "admin": ["*"]}))

    def connected() -> bool:
        status = httpx.get(f"{two.url}/api/status", headers=token).json()
        return (status["websocket_clients_connected"], status["websocket_clients_here"]) == (3, 0)

    async with (
        connect(one.ws_url, additional_headers=token),
        connect(one.ws_url, additional_headers=token),
        connect(one.ws_url, additional_headers=token),
    ):
        await asyncio.to_thread(eventually, connected, "the other has heard of them")
        with pytest.raises(InvalidStatus) as refused:
            async with connect(two.ws_url, additional_headers=token):
                pass
        assert refused.value.response.status_code in {403, 503}  # the portable edge cannot say more
    batch = [{"device_id": f"lamp/{number}", "value": 1} for number in range(60)]

    def send(server: Server, count: int) -> int:
        return httpx.post(f"{server.url}/api/data", json=batch[:count], headers=token).status_code

    assert (send(two, 1), send(one, 60)) == (200, 200)
    await asyncio.to_thread(eventually, partial(is_in_debt, two), "what was sent to one counts at the other")
    assert send(two, 1) == 429


def is_in_debt(server: Server) -> bool:
    buckets = server._app.parts.admission.limits._updates._buckets
    return buckets["jwt:alice"].tokens < 0


class Watcher:
    """A client that keeps its cursor, and goes to the next server when it is told that this one restarts."""

    def __init__(self, servers: list[ServerProcess]) -> None:
        self._servers = servers
        self.seqs: list[int] = []
        self.codes: list[int] = []
        self.resumed: list[bool] = []
        self.epoch = ""

    async def run(self) -> None:
        for server in self._servers:
            cursor = f"&since={self.epoch}:{self.seqs[-1]}" if self.seqs else ""
            try:
                async with connect(f"{server.ws_url}?mode=every{cursor}", max_size=None) as websocket:
                    await self._read(websocket)
            except ConnectionClosed as closed:
                assert closed.rcvd is not None
                self.codes.append(closed.rcvd.code)

    async def _read(self, websocket: Any) -> None:
        while True:
            message = json.loads(await websocket.recv())
            if message["type"] == "hello":
                self.epoch = message["epoch"]
                self.resumed.append(message["resumed"])
                if not self.seqs:
                    self.seqs.append(message["seq"])
            elif message["type"] == "data_update":
                self.seqs.append(message["seq"])


@pytest.mark.parametrize("edge", ["picows"])
async def test_a_server_that_is_told_to_stop_sends_its_clients_to_the_other_with_everything(
    server_process: StartServer, nats: Engine, tmp_path: Path, edge: str
) -> None:
    one: ServerProcess = server_process(f"{nats.url}/lab?copy={tmp_path}/one.db&as=one", edge=edge)
    two: ServerProcess = server_process(f"{nats.url}/lab?copy={tmp_path}/two.db&as=two", edge=edge)
    watchers = [Watcher([one, two]) for _ in range(CLIENTS)]
    watching = [asyncio.create_task(watcher.run()) for watcher in watchers]
    await eventually_async(lambda: all(watcher.resumed for watcher in watchers), "all are greeted", DEADLINE_S)
    sent = 0
    async with httpx.AsyncClient(timeout=DEADLINE_S) as client:

        async def publish() -> None:
            nonlocal sent
            (await client.post(f"{two.url}/api/data", json={"device_id": "lamp", "value": sent})).raise_for_status()
            sent += 1

        await publish()
        stopping = asyncio.create_task(asyncio.to_thread(one.stop))
        while not (stopping.done() and sent >= READINGS_AT_LEAST and all(len(each.resumed) == 2 for each in watchers)):
            await publish()
            assert not any(task.done() for task in watching), "each goes on"
        await publish()
        newest = (await client.get(f"{two.url}/api/status")).json()
        assert newest["websocket_clients_connected"] == newest["websocket_clients_here"] == CLIENTS
    await eventually_async(lambda: all(watcher.seqs[-1] == newest["seq"] for watcher in watchers), "all have all")
    for watcher in watchers:
        assert watcher.seqs == [*range(watcher.seqs[0], newest["seq"] + 1)], "each reading once, in order"
        assert watcher.codes == [SERVICE_RESTART]
        assert watcher.resumed == [False, True]
    for task in watching:
        task.cancel()
    await asyncio.wait(watching)


def test_a_server_that_is_about_to_stop_says_so_and_takes_no_new_streams(pair: list[Server], issuer: Issuer) -> None:
    one, two = pair
    token = bearer(issuer.token(twincast={"read": ["*"], "admin": ["*"]}))
    one._ask(lambda _hub: one._app.parts.leave())
    assert httpx.get(f"{one.url}/readyz").status_code == 503
    assert httpx.get(f"{two.url}/readyz").status_code == 200
    assert httpx.get(f"{one.url}/api/data", headers=token).status_code == 200
    refused = httpx.get(f"{one.url}/api/events", headers={**token, "Accept": "text/event-stream"})
    assert (refused.status_code, refused.json()["code"]) == (503, "stopping")

    def leaving() -> list[bool]:
        return [each["leaving"] for each in cluster(two, token)["servers"]]

    eventually(lambda: leaving() == [True, False], "the other knows")


def test_servers_that_hold_different_logs_say_so(pair: list[Server], issuer: Issuer) -> None:
    one, two = pair
    token = bearer(issuer.token(twincast={"read": ["*"], "publish": ["*"], "admin": ["*"]}))
    post = partial(httpx.post, f"{one.url}/api/data", headers=token)
    post(json={"device_id": "lamp", "value": 1}).raise_for_status()
    journal: Any = one._app.parts.hub._journal
    place = journal._fold.place
    journal._fold.place = place._replace(crc=place.crc ^ 1)  # it has made something else of the log
    post(json={"device_id": "lamp", "value": 2}).raise_for_status()
    for server, other in ((one, "two"), (two, "one")):
        status = eventually(partial(unwell, server, token), "each says so")
        assert f"this server and {other} made different things of the log" in status["problem"]


def unwell(server: Server, token: dict[str, str]) -> Any:
    status = httpx.get(f"{server.url}/api/status", headers=token).json()
    return None if status["ok"] else status


def test_while_nats_cannot_be_reached_the_status_says_since_when_what_is_read_may_be_old(
    nats: Engine, tmp_path: Path
) -> None:
    with Server(f"{nats.url}/lab?copy={tmp_path}/one.db") as server:
        httpx.post(f"{server.url}/api/data", json={"device_id": "lamp", "value": 1}).raise_for_status()
        nats.kill()
        status = eventually(partial(old, server), "it says so")
        assert not status["ok"] and "may be older" in status["problem"]
        assert status["as_of_utc"] < status["timestamp_utc"]
        assert httpx.get(f"{server.url}/api/data").json()["data"].keys() == {"lamp"}
        nats.start()
        eventually(lambda: "as_of_utc" not in httpx.get(f"{server.url}/api/status").json(), "it is heard again")


def old(server: Server) -> Any:
    status = httpx.get(f"{server.url}/api/status").json()
    return status if "as_of_utc" in status else None
