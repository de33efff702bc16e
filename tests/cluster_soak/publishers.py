"""Those who send: each one update at a time, until a server says that it is stored, on another one at any failure."""

import asyncio
import json
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

from tests.cluster_soak.ledger import Ack, Ledger
from tests.cluster_soak.machines import Server

DEVICES = [f"{place}/{name}" for place in ("lab", "hall", "roof") for name in ("fan", "door", "lamp")]
BATCH = 3
ANSWER_S = 3.0
"""How long a publisher waits for an answer before it asks another server."""
AGAIN_S = 0.05
HEDGED = 0.05
"""This share of what has a key goes to two servers at once, as from somebody who presses twice."""


class Refused(Exception):
    """A server says that it will never take it, which is wrong."""


class Publisher(ABC):
    """One of them; the way is the subclass's."""

    has_key = True

    def __init__(self, name: str, servers: Sequence[Server], ledger: Ledger, seed: str, pause_s: float) -> None:
        self.name = name
        self._servers = servers
        self._ledger = ledger
        self._random = random.Random(seed)
        self._pause_s = pause_s
        self._server = self._random.choice(servers)
        ledger.sent[name] = 0
        if not self.has_key:
            ledger.keyless.add(name)

    async def run(self, stopping: asyncio.Event) -> None:
        """Publish until it is told to stop, and the last update is through."""
        try:
            while not stopping.is_set():
                await self._publish(self._ledger.sent[self.name])
                await asyncio.sleep(self._pause_s * self._random.uniform(0.5, 1.5))
        finally:
            await self.leave()

    async def _publish(self, n: int) -> None:
        self._ledger.sent[self.name] += 1
        began_s = time.monotonic()
        while not (acks := await self._attempts(n)):
            if not self.has_key:
                return  # whether it is stored is not known, and it is never asked
            self._server = self._random.choice([each for each in self._servers if each is not self._server])
            await asyncio.sleep(AGAIN_S)
        self._ledger.answered(acks, began_s)

    async def _attempts(self, n: int) -> list[Ack]:
        at = [self._server]
        if self.may_hedge and self._random.random() < HEDGED:
            at = self._random.sample(list(self._servers), 2)
        acks = await asyncio.gather(*(self._attempt(server, n) for server in at))
        return [ack for ack in acks if ack is not None]

    async def _attempt(self, server: Server, n: int) -> Ack | None:
        self._ledger.attempts += 1
        try:
            async with asyncio.timeout(ANSWER_S):
                return await self.ask(server, n)
        except Refused as refused:
            self._ledger.wrong.append(f"{self.name}: update {n} was refused for good by {server.name}: {refused}")
        except (OSError, httpx.HTTPError, ConnectionClosed, InvalidHandshake, InvalidMessage, EOFError):
            pass
        await self.leave()
        return None

    def reading(self, n: int, i: int = 0) -> dict[str, Any]:
        """Return a reading that is like no other."""
        device_id = DEVICES[(n + i) % len(DEVICES)]
        return {"device_id": device_id, "value": {"by": self.name, "n": n, "i": i}}

    may_hedge = False

    @abstractmethod
    async def ask(self, server: Server, n: int) -> Ack | None:
        """Ask a server once; None if it says that it cannot at the moment."""

    @abstractmethod
    async def leave(self) -> None:
        """Go away from a server that did not answer; `ask` may follow."""


class OverRest(Publisher):
    """One request for each reading, with an Idempotency-Key."""

    may_hedge = True

    def __init__(self, *about: Any) -> None:
        super().__init__(*about)
        self._http = httpx.AsyncClient(timeout=None)

    def body(self, n: int) -> Any:
        return self.reading(n)

    async def ask(self, server: Server, n: int) -> Ack | None:
        headers = {"Idempotency-Key": f"{self.name}-{n}"} if self.has_key else {}
        answer = await self._http.post(f"{server.url}/api/data", json=self.body(n), headers=headers)
        if answer.status_code >= 500 or answer.status_code == 429:
            return None
        if answer.status_code != 200:
            raise Refused(answer.text)
        said = answer.json()
        at = said.get("event", said)
        first, last = at.get("first_seq", at["seq"]), at.get("last_seq", at["seq"])
        is_replayed = answer.headers.get("Idempotency-Replayed") == "true"
        return Ack(self.name, n, at["epoch"], first, last, is_replayed)

    async def leave(self) -> None:
        await self._http.aclose()
        self._http = httpx.AsyncClient(timeout=None)


class OverRestInBatches(OverRest):
    """One request for three readings, all or none."""

    def body(self, n: int) -> Any:
        return [self.reading(n, i) for i in range(BATCH)]


class OverRestWithoutKey(OverRest):
    """One request for each reading, once."""

    has_key = may_hedge = False


class OverWebSocket(Publisher):
    """Messages with an update_id."""

    query = "devices="

    def __init__(self, *about: Any) -> None:
        super().__init__(*about)
        self._socket: ClientConnection | None = None
        self._at: Server | None = None

    def message(self, n: int) -> dict[str, Any]:
        return {"type": "telemetry", **self.reading(n), "id": n, "update_id": f"{self.name}-{n}"}

    async def ask(self, server: Server, n: int) -> Ack | None:
        if self._socket is None or self._at is not server:
            await self.leave()
            url = f"{server.ws_url}?{self.query}"
            self._socket = await open_websocket(url, compression=None, ping_interval=None, close_timeout=0.1)
            self._at = server
        await self._socket.send(json.dumps(self.message(n)))
        while True:
            said = json.loads(await self._socket.recv())
            if said["type"] == "error":
                if said["retryable"]:
                    await self.leave()
                    return None
                raise Refused(json.dumps(said))
            if said["type"] == "ack" and said["id"] == n:
                return self.ack(n, said)

    def ack(self, n: int, said: Any) -> Ack:
        return Ack(self.name, n, said["epoch"], said["seq"], said["seq"], said.get("replayed", False))

    async def leave(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.transport.abort()
            with suppress(ConnectionClosed, OSError):
                await socket.close()


class InLines(OverWebSocket):
    """A producer's numbered lines."""

    query = "devices=&ordered=1"

    def message(self, n: int) -> dict[str, Any]:
        return {"type": "telemetry", **self.reading(n), "id": n, "producer": self.name, "line": n + 1}

    def ack(self, n: int, said: Any) -> Ack:
        return super().ack(n, said)._replace(is_at_least=said.get("replayed", False))


WAYS: dict[str, type[Publisher]] = {
    "rest": OverRest,
    "batch": OverRestInBatches,
    "websocket": OverWebSocket,
    "line": InLines,
    "keyless": OverRestWithoutKey,
}
