"""Those who watch: each comes back with its cursor to any server, and is owed every change, once and in order."""

import asyncio
import json
import random
import time
from array import array
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlencode

from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

from tests.cluster_soak.ledger import Ledger
from tests.cluster_soak.machines import Server
from tests.soak import Faulty, Heard
from twincast.core.subscription import Mode, Subscription, rules_of

PING_S = 0.5
SILENT_S = 2.0
"""After so long without a word a watcher goes to another server."""
MOVE_CHANCE = 0.0005
"""Of moving to another server after a message, for no reason."""


class HeardFromMany(Heard):
    """What was heard, of one epoch: when the log is another one, all begins anew."""

    resyncs: list[tuple[str, tuple[str, int]]]
    """Each time that a cursor was not taken: the reason, and the cursor."""

    def __init__(self, subscription: Subscription) -> None:
        super().__init__(subscription)
        self.resyncs = []

    def take(self, message: Any) -> None:
        if message["type"] == "hello" and not message["resumed"] and self.cursor is not None:
            self.resyncs.append((message.get("reason", "none"), self.cursor))
            if message.get("reason") == "epoch":
                self.seqs, self.sums, self.gaps = array("q"), array("Q"), []
                self.cursor = None
        super().take(message)


class Watcher:
    """One of them."""

    def __init__(
        self,
        name: str,
        mode: Mode,
        servers: Sequence[Server],
        ledger: Ledger,
        seed: str,
        *,
        is_faulty: bool = False,
        until: Callable[[], tuple[str, int] | None],
    ) -> None:
        """Watch later.

        Args:
            name: its name.
            mode: of its subscription.
            servers: where it may go.
            ledger: is told how far it is.
            seed: of where it goes.
            is_faulty: whether it loses an event, once: a control.
            until: returns the position at which it may stop; None while there is none.
        """
        self.name = name
        self.server: Server | None = None
        """Where it is."""
        self.heard = HeardFromMany(Subscription(rules_of(["*"]), mode))
        self._servers = servers
        self._ledger = ledger
        self._random = random.Random(seed)
        self._faulty = Faulty("drop" if is_faulty else None)
        self._until = until

    @property
    def is_done(self) -> bool:
        """Whether it has everything that it shall have."""
        until, cursor = self._until(), self.heard.cursor
        return until is not None and cursor is not None and cursor[0] == until[0] and cursor[1] >= until[1]

    async def run(self) -> None:
        """Watch, until it may stop."""
        while not self.is_done:
            self.server = self._random.choice([each for each in self._servers if each is not self.server])
            try:
                async with open_websocket(
                    self._address(self.server),
                    compression=None,
                    max_size=None,
                    open_timeout=SILENT_S,
                    ping_interval=None,
                    close_timeout=0.1,
                ) as socket:
                    await self._listen(socket)
            except (OSError, ConnectionClosed, InvalidHandshake, InvalidMessage, EOFError):
                await asyncio.sleep(self._random.uniform(0.02, 0.1))

    async def _listen(self, socket: Any) -> None:
        pinged_s = heard_s = time.monotonic()
        while not self.is_done and self._random.random() >= MOVE_CHANCE:
            now_s = time.monotonic()
            if now_s - heard_s > SILENT_S:
                socket.transport.abort()
                return
            if now_s - pinged_s > PING_S:
                await socket.send('{"type":"ping"}')
                pinged_s = now_s
            try:
                async with asyncio.timeout(PING_S):
                    text = await socket.recv()
            except TimeoutError:
                continue
            heard_s = time.monotonic()
            for message in self._faulty.pass_on(json.loads(text)):
                self.heard.take(message)
            if self._ledger.faults and self.heard.cursor is not None:
                self._ledger.faults[-1].back(self.name, self.heard.cursor[1])

    def _address(self, server: Server) -> str:
        query: list[tuple[str, Any]] = [("mode", self.heard.subscription.mode)]
        if self.heard.cursor:
            query.append(("since", f"{self.heard.cursor[0]}:{self.heard.cursor[1]}"))
        return f"{server.ws_url}?{urlencode(query)}"
