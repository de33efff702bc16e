"""Tokens of an issuer whose keys are on their way, or do not come: nobody with a good one is refused for good."""

import asyncio
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.credentials import AUDIENCE, ISSUER, Issuer, bearer, jwks
from tests.running import DEADLINE_S, eventually
from twincast.access import jwks as issuers_keys
from twincast.access.jwks import Fetch
from twincast.testing import Server
from twincast.transports import front


class SlowIssuer:
    """Publishes keys, or fails, and answers when it is let; nobody fetches over the network."""

    def __init__(self, *issuers: Issuer) -> None:
        self.text: str | None = jwks(*issuers)
        self.fetches = 0
        self.answers = threading.Event()
        self.answers.set()

    async def fetch(self) -> bytes:
        self.fetches += 1
        await asyncio.to_thread(self.answers.wait, DEADLINE_S)
        if self.text is None:
            raise OSError("nobody answers")
        return self.text.encode()


Publish = Callable[..., SlowIssuer]
HOW: dict[str, Any] = {"jwt_jwks": "elsewhere", "jwt_issuer": ISSUER, "jwt_audience": AUDIENCE}


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Publish keys of issuers, where a server looks for them."""

    def published(*issuers: Issuer) -> SlowIssuer:
        slow = SlowIssuer(*issuers)

        def fetch_from(_where: str) -> Fetch:
            return slow.fetch

        monkeypatch.setattr(issuers_keys, "fetch_from", fetch_from)
        return slow

    return published


def status(server: Server, token: str) -> httpx.Response:
    return httpx.get(f"{server.url}/api/status", headers=bearer(token), timeout=DEADLINE_S)


def test_whoever_comes_while_new_keys_are_fetched_waits_for_them(
    publish: Publish, monkeypatch: pytest.MonkeyPatch, edge: str
) -> None:
    first, second = Issuer("first"), Issuer("second")
    slow = publish(first)
    with (
        Server("memory:", edge=edge, failed_logins_per_minute=1, **HOW) as server,
        ThreadPoolExecutor() as asking,
    ):
        monkeypatch.setattr(issuers_keys, "REFRESH_MIN_S", 0.0)  # as if a minute had passed
        slow.text = jwks(first, second)
        slow.answers.clear()
        early = asking.submit(status, server, second.token("early"))
        eventually(lambda: slow.fetches == 2, "the keys are fetched again")
        monkeypatch.setattr(issuers_keys, "REFRESH_MIN_S", 60.0)
        late = asking.submit(status, server, second.token("late"))
        with connect(f"{server.ws_url}?auth=message") as socket:
            socket.recv(timeout=DEADLINE_S)
            socket.send(json.dumps({"type": "auth", "token": second.token()}))
            refusal = json.loads(socket.recv(timeout=DEADLINE_S))
            assert (refusal["code"], refusal["retryable"]) == ("keys_not_fetched", True)
            with pytest.raises(ConnectionClosed) as closed:
                socket.recv(timeout=DEADLINE_S)
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1013  # come again
        slow.answers.set()
        assert [early.result().status_code, late.result().status_code] == [200, 200]
        assert slow.fetches == 2


def test_an_issuer_that_does_not_answer_is_503_not_a_fault_of_the_server(
    publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = publish(Issuer("first"))
    monkeypatch.setattr(front, "KEYS_TIMEOUT_S", 0.1)
    with Server("memory:", **HOW) as server:
        monkeypatch.setattr(issuers_keys, "REFRESH_MIN_S", 0.0)
        slow.answers.clear()
        answer = status(server, Issuer("second").token())
        slow.answers.set()
        assert (answer.status_code, answer.json()["code"]) == (503, "keys_not_fetched")
        assert answer.headers["retry-after"] == "1"


def test_a_request_waits_longer_for_the_keys_than_a_fetch_takes() -> None:
    assert front.KEYS_TIMEOUT_S > issuers_keys.FETCH_TIMEOUT_S


def test_after_an_outage_at_the_start_good_tokens_are_no_failed_logins(publish: Publish) -> None:
    issuer = Issuer()
    slow = publish(issuer)
    slow.text = None
    with Server("memory:", failed_logins_per_minute=1, **HOW) as server:
        for _ in range(3):
            answer = status(server, issuer.token())
            assert (answer.status_code, answer.json()["code"]) == (503, "keys_not_fetched")
            assert 50 < int(answer.headers["retry-after"]) <= 60
        assert slow.fetches == 1
