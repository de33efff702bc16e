"""A request that takes long does not outlive its credential: what was let in is asked again before it counts."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.credentials import AUDIENCE, ISSUER, Issuer, add_key, bearer, jwks, revoke_key, set_ahead, until_known
from tests.running import DEADLINE_S, eventually
from twincast.delivery.scheduler import FixedCost, Scheduler
from twincast.delivery.selection import Selection
from twincast.hub.hub import Hub
from twincast.testing import Server
from twincast.transports.rest import data

BODIES = {
    "/api/data": b'{"device_id":"late","value":1}',
    "/api/control": b'{"target":"late","command":"open"}',
}


class SlowPost:
    """A request that was let in, and whose body lacks its last byte."""

    def __init__(self, connection: socket.socket, path: str, headers: dict[str, str]) -> None:
        self._socket = connection
        self._body = BODIES[path]
        connection.settimeout(DEADLINE_S)
        told = {
            "Host": "localhost",
            "Content-Type": "application/json",
            "Content-Length": str(len(self._body)),
            "Expect": "100-continue",
            **headers,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in told.items())
        connection.sendall(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode())
        assert connection.recv(1_000).startswith(b"HTTP/1.1 100 ")  # it asks for the body, so it has let the head in
        connection.sendall(self._body[:-1])

    def finish(self) -> int:
        """Send the last byte, and return the status."""
        self._socket.sendall(self._body[-1:])
        return int(self._socket.recv(10_000).split(b" ", 2)[1])


@contextmanager
def slow_post(server: Server, path: str, headers: dict[str, str]) -> Iterator[SlowPost]:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        yield SlowPost(connection, path, headers)


def until_refused(server: Server, headers: dict[str, str]) -> None:
    """Wait until a new request with the same credential is refused."""
    eventually(lambda: httpx.get(f"{server.url}/api/status", headers=headers).status_code == 401, "it is refused")


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def trusting(issuer: Issuer, tmp_path: Path) -> dict[str, Any]:
    """What makes a server take the issuer's tokens."""
    file = tmp_path / "keys.json"
    file.write_text(jwks(issuer))
    return {"jwt_jwks": str(file), "jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, "failed_logins_per_minute": 10_000}


def for_a_minute(issuer: Issuer) -> dict[str, str]:
    """Return a token for everything that is good for so long; 30 s of it are the leeway."""
    return bearer(issuer.token(lives_s=30, twincast={"read": ["*"], "publish": ["*"], "command": ["*"]}))


@pytest.mark.parametrize("path", BODIES)
def test_a_body_is_not_stored_whose_key_was_revoked_while_it_came(tmp_path: Path, path: str) -> None:
    journal = tmp_path / "journal.db"
    key = bearer(add_key(journal, publish=["*"], command=["*"]))
    with Server(f"sqlite:{journal}") as server, slow_post(server, path, key) as late:
        revoke_key(journal)
        until_refused(server, key)
        assert late.finish() == 401
        assert server.log() == []


@pytest.mark.parametrize("path", BODIES)
def test_a_body_is_not_stored_whose_token_expired_while_it_came(
    issuer: Issuer, trusting: dict[str, Any], path: str
) -> None:
    with Server("memory:", **trusting) as server:
        token = for_a_minute(issuer)
        with slow_post(server, path, token) as late:
            set_ahead(server, 100)
            until_refused(server, token)
            assert late.finish() == 401
            assert server.log() == []


def test_a_body_of_nobody_is_not_stored_once_there_is_a_key(tmp_path: Path) -> None:
    journal = tmp_path / "journal.db"
    with Server(f"sqlite:{journal}") as server, slow_post(server, "/api/data", {}) as late:
        add_key(journal, read=["*"])
        until_refused(server, {})
        assert late.finish() == 401
        assert server.log() == []


def test_a_body_whose_credential_still_holds_is_stored_however_late_it_comes(tmp_path: Path) -> None:
    journal = tmp_path / "journal.db"
    key = bearer(add_key(journal, publish=["*"]))
    with Server(f"sqlite:{journal}") as server, slow_post(server, "/api/data", key) as late:
        other = add_key(journal, "other", read=["*"])
        until_known(server, other)
        assert late.finish() == 200


def test_a_read_that_waited_is_not_answered_whose_key_was_revoked_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits, when_reached = threading.Event(), Hub.when_reached

    def noted(hub: Hub, seq: int, callback: Callable[[], None]) -> Callable[[], object]:
        waits.set()
        return when_reached(hub, seq, callback)

    monkeypatch.setattr(Hub, "when_reached", noted)
    monkeypatch.setattr(data, "REACH_S", DEADLINE_S)
    journal = tmp_path / "journal.db"
    reader = bearer(add_key(journal, "reader", read=["*"]))
    writer = bearer(add_key(journal, "writer", publish=["*"]))
    with Server(f"sqlite:{journal}") as server:
        answers: list[httpx.Response] = []

        def read() -> None:
            answers.append(httpx.get(f"{server.url}/api/data?min_seq=1", headers=reader, timeout=DEADLINE_S))

        waiting = threading.Thread(target=read)
        waiting.start()
        assert waits.wait(DEADLINE_S)
        revoke_key(journal, "reader")
        until_refused(server, reader)
        assert waiting.is_alive()
        body = {"device_id": "late", "value": 1}
        httpx.post(f"{server.url}/api/data", json=body, headers=writer).raise_for_status()
        waiting.join()
        assert (answers[0].status_code, answers[0].json()["code"]) == (401, "credential_expired")


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/api/status", Selection),
        ("/api/data", Selection),
        ("/api/data?devices=la*p", FixedCost),
        ("/api/data?devices=la*p", Selection),
        ("/api/events?devices=la*p", FixedCost),
        ("/api/events?devices=la*p", Selection),
    ],
)
def test_a_read_that_waited_for_its_turn_is_not_answered_whose_key_was_revoked_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, kind: type, accept: str
) -> None:
    may_go_on, waits, serve = threading.Event(), threading.Event(), Scheduler._serve

    def serve_later(scheduler: Scheduler, accounts: Any) -> None:
        ((first, *_), *_) = accounts.values()
        if may_go_on.is_set() or not isinstance(first.work, kind):
            serve(scheduler, accounts)
        else:
            waits.set()
            scheduler._call_later(0.01, partial(serve_later, scheduler, accounts))

    monkeypatch.setattr("twincast.delivery.scheduler.AT_ONCE_STEPS", 0)  # as for somebody who is in debt
    monkeypatch.setattr(Scheduler, "_serve", serve_later)
    with Server(f"sqlite:{tmp_path}/journal.db") as server:
        httpx.post(f"{server.url}/api/data", json={"device_id": "lamp", "value": 1}).raise_for_status()
        reader = {**bearer(server.add_key("reader", read=["*a*p*", "door"])), "Accept": accept}
        statuses: list[int] = []
        texts: list[str] = []

        def read() -> None:
            with httpx.stream("GET", f"{server.url}{path}", headers=reader, timeout=DEADLINE_S) as answer:
                statuses.append(answer.status_code)
                texts.append(answer.read().decode())

        waiting = threading.Thread(target=read)
        waiting.start()
        assert waits.wait(DEADLINE_S)
        server.revoke_key("reader")
        may_go_on.set()
        waiting.join()
        is_stream = kind is Selection and path.startswith("/api/events") and accept == "text/event-stream"
        assert statuses == [200 if is_stream else 401]
        assert "lamp" not in texts[0]


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
def test_a_ticket_is_good_no_longer_than_the_token_it_was_got_with(
    issuer: Issuer, trusting: dict[str, Any], accept: str
) -> None:
    with Server("memory:", **trusting) as server:
        token = for_a_minute(issuer)
        ticket = httpx.post(f"{server.url}/api/tickets", json={}, headers=token).json()["ticket"]
        set_ahead(server, 100)
        until_refused(server, token)
        answer = httpx.get(f"{server.url}/api/events?ticket={ticket}", headers={"Accept": accept})
        assert (answer.status_code, answer.json()["code"]) == (401, "credential_expired")
