"""Who is silent is pinged in time, and one timer serves all."""

import asyncio
import logging
from collections.abc import Callable
from itertools import pairwise
from typing import Any, cast

import pytest

from twincast.server.pings import CLIENTS_A_TURN, Pings

INTERVAL_S, TIMEOUT_S, TICK_S = 20.0, 10.0, 1.0


class HandTurnedLoop:
    """A loop that calls what is due when a test says so; it counts what is scheduled."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.soon: list[Callable[[], None]] = []
        self.turns = 0

    def call_later(self, delay_s: float, callback: Callable[..., None], *arguments: Any) -> None:
        self.timers.append((self.now_s + delay_s, lambda: callback(*arguments)))

    def call_soon(self, callback: Callable[..., None], *arguments: Any) -> None:
        self.soon.append(lambda: callback(*arguments))

    def turn(self) -> None:
        """Call what is to be called soon, but not what that schedules."""
        self.turns += 1
        due, self.soon = self.soon, []
        for callback in due:
            callback()

    def pass_s(self, seconds: float) -> None:
        """Let time pass, timer by timer."""
        until_s = self.now_s + seconds
        while self.timers and min(self.timers)[0] <= until_s:
            timer = min(self.timers, key=lambda each: each[0])
            self.timers.remove(timer)
            self.now_s, callback = timer
            self.soon.append(callback)
            while self.soon:
                self.turn()
        self.now_s = until_s


class Listed:
    """A client that notes when it was pinged, and when it was ended."""

    def __init__(self, loop: HandTurnedLoop) -> None:
        self.loop = loop
        self.silent_ticks = self.pong_ticks_left = 0
        self.is_held = False
        self.pinged_at_s: list[float] = []
        self.ended_at_s: list[float] = []

    def ping(self) -> bool:
        if not self.is_held:
            self.pinged_at_s.append(self.loop.now_s)
        return not self.is_held

    def end_unanswered(self) -> None:
        self.ended_at_s.append(self.loop.now_s)

    def say(self) -> None:
        self.silent_ticks = 0

    def pong(self) -> None:
        self.silent_ticks = self.pong_ticks_left = 0


def pinging(interval_s: float = INTERVAL_S, timeout_s: float = TIMEOUT_S) -> tuple[HandTurnedLoop, Pings]:
    loop = HandTurnedLoop()
    return loop, Pings(cast(asyncio.AbstractEventLoop, loop), interval_s, timeout_s)


@pytest.mark.parametrize("heard_at_s", [0.0, 0.3, 0.999, 5.0, 19.5])
def test_who_is_silent_is_pinged_after_the_interval_and_at_most_a_tick_later(heard_at_s: float) -> None:
    loop, pings = pinging()
    client = Listed(loop)
    pings.add(client)
    loop.pass_s(heard_at_s)
    client.say()
    loop.pass_s(INTERVAL_S + TICK_S)
    assert len(client.pinged_at_s) == 1
    assert INTERVAL_S <= client.pinged_at_s[0] - heard_at_s <= INTERVAL_S + TICK_S


def test_who_says_something_now_and_then_is_not_pinged() -> None:
    loop, pings = pinging()
    client = Listed(loop)
    pings.add(client)
    for _ in range(20):
        loop.pass_s(INTERVAL_S - 0.5)
        client.say()
    assert not client.pinged_at_s


def test_who_answers_is_pinged_again_and_again() -> None:
    loop, pings = pinging()
    client = Listed(loop)
    pings.add(client)
    for pinged in range(1, 5):
        while len(client.pinged_at_s) < pinged:
            loop.pass_s(TICK_S)
        client.pong()
    assert not client.ended_at_s


def test_who_does_not_answer_is_ended_after_the_timeout_though_it_says_other_things() -> None:
    loop, pings = pinging()
    client = Listed(loop)
    pings.add(client)
    while not client.ended_at_s:
        loop.pass_s(0.5)
        if client.pinged_at_s:
            client.say()
    assert TIMEOUT_S <= client.ended_at_s[0] - client.pinged_at_s[0] <= TIMEOUT_S + TICK_S


def test_who_cannot_be_pinged_is_neither_taken_for_dead_nor_forgotten() -> None:
    loop, pings = pinging()
    client = Listed(loop)
    client.is_held = True
    pings.add(client)
    loop.pass_s(10 * INTERVAL_S)
    assert not client.pinged_at_s and not client.ended_at_s
    client.is_held = False
    loop.pass_s(TICK_S)
    assert len(client.pinged_at_s) == 1


def test_a_timeout_above_the_interval_is_kept_too() -> None:
    loop, pings = pinging(1.0, 3.0)
    client = Listed(loop)
    pings.add(client)
    while not client.ended_at_s:
        loop.pass_s(0.05)
    assert 3.0 <= client.ended_at_s[0] - client.pinged_at_s[0] <= 3.25


def test_one_timer_serves_all_and_no_turn_looks_at_more_than_its_share() -> None:
    loop, pings = pinging()
    clients = [Listed(loop) for _ in range(10 * CLIENTS_A_TURN)]
    for client in clients:
        pings.add(client)
    assert len(loop.timers) == 1
    loop.pass_s(INTERVAL_S)
    assert len(loop.timers) == 1
    callback = loop.timers.pop()[1]
    callback()
    looks = [0]
    while loop.soon:
        looks.append(sum(len(client.pinged_at_s) for client in clients))
        loop.turn()
    looks.append(sum(len(client.pinged_at_s) for client in clients))
    assert looks[-1] == len(clients)
    assert max(later - earlier for earlier, later in pairwise(looks)) == CLIENTS_A_TURN
    assert len(loop.timers) == 1


def test_without_clients_no_timer_runs_and_the_next_one_starts_it_again() -> None:
    loop, pings = pinging()
    client = Listed(loop)
    assert not loop.timers
    pings.add(client)
    pings.discard(client)
    pings.discard(client)
    loop.pass_s(2 * TICK_S)
    assert not loop.timers and not client.pinged_at_s
    pings.add(client)
    pings.add(Listed(loop))
    assert len(loop.timers) == 1
    loop.pass_s(INTERVAL_S + TICK_S)
    assert len(client.pinged_at_s) == 1


def test_a_client_that_fails_does_not_stop_the_pings_of_others(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Listed):
        def ping(self) -> bool:
            raise OSError("gone")

    loop, pings = pinging()
    first, second = Failing(loop), Listed(loop)
    pings.add(first)
    pings.add(second)
    with caplog.at_level(logging.CRITICAL, logger="twincast.server"):
        loop.pass_s(INTERVAL_S + TICK_S)
    assert len(second.pinged_at_s) == 1
