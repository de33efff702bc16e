"""Which clients have been silent for long, and are asked by a ping whether they are still there.

One timer serves all connections of a server. What it knows of each is counted in its own ticks, so an idle connection
has no task, no timer and no time of its own, and a read does not look at a clock.
"""

import asyncio
import logging
from collections.abc import Iterator
from itertools import islice
from math import ceil
from typing import Protocol

logger = logging.getLogger("twincast.server")

TICK_MAX_S = 1.0
TICKS_MIN = 4
"""Of the shorter one of interval and timeout; a ping, or an end, is late by one tick at most."""
CLIENTS_A_TURN = 200
"""How many are looked at before other work has its turn: a ping costs a system call, so these take a millisecond."""


class Client(Protocol):
    """A connection, as far as pings are concerned."""

    silent_ticks: int
    """For how many ticks nothing has come; whoever reads sets it to 0."""
    pong_ticks_left: int
    """For how many ticks more the pong may be on its way; 0 if none is awaited. Whoever reads the pong sets it to 0."""

    def ping(self) -> bool:
        """Ask for a pong; return whether that was possible."""

    def end_unanswered(self) -> None:
        """End the connection, since the pong has not come in time."""


class Pings:
    """Pings the clients that are silent, and ends those that do not answer."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ping_interval_s: float, pong_timeout_s: float) -> None:
        """Begin without clients.

        Args:
            loop: calls back.
            ping_interval_s: for how long a client must have been silent.
            pong_timeout_s: how long its pong may take.
        """
        self._loop = loop
        self._tick_s = min(TICK_MAX_S, ping_interval_s / TICKS_MIN, pong_timeout_s / TICKS_MIN)
        self._ping_ticks = ceil(ping_interval_s / self._tick_s)
        self._pong_ticks = ceil(pong_timeout_s / self._tick_s)
        self._clients: dict[Client, None] = {}
        self._is_ticking = False

    def add(self, client: Client) -> None:
        """Look after a client, which has just been heard."""
        self._clients[client] = None
        if not self._is_ticking:
            self._is_ticking = True
            self._wait()

    def discard(self, client: Client) -> None:
        """Look after a client no longer, if that was done."""
        self._clients.pop(client, None)

    def _wait(self) -> None:
        self._loop.call_later(self._tick_s, self._tick)

    def _tick(self) -> None:
        self._is_ticking = bool(self._clients)
        if self._is_ticking:
            self._go_on(iter(tuple(self._clients)))

    def _go_on(self, clients: Iterator[Client]) -> None:
        looked_at = 0
        for client in islice(clients, CLIENTS_A_TURN):
            looked_at += 1
            try:
                self._look_at(client)
            except Exception:  # the others' pings must go on
                logger.exception("a client could not be pinged")
        if looked_at == CLIENTS_A_TURN:
            self._loop.call_soon(self._go_on, clients)
        else:
            self._wait()

    def _look_at(self, client: Client) -> None:
        if client.pong_ticks_left:
            client.pong_ticks_left -= 1
            if not client.pong_ticks_left:
                client.end_unanswered()
        elif client.silent_ticks < self._ping_ticks:
            client.silent_ticks += 1
        elif client.ping():
            client.pong_ticks_left = self._pong_ticks
