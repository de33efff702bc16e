"""The one way to wait in a test: for a condition, with a deadline, and words for what was awaited."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
DEADLINE_S = 10.0
LOOK_EVERY_S = 0.01  # what happens in another thread or process has no event to wait for


class HasState(Protocol):
    """A server of this kit, or a client with a live local copy."""

    @property
    def state(self) -> Mapping[str, Any]:
        """The newest twin of every device, each with a `value`."""


def eventually(condition: Callable[[], T], awaited: str, deadline_s: float = DEADLINE_S) -> T:
    """Return what the condition returns as soon as it is true.

    Raises:
        AssertionError: it was not, within the deadline; it says what was awaited and what was seen last.
    """
    until_s = time.monotonic() + deadline_s
    while not (result := condition()):
        if time.monotonic() >= until_s:
            raise AssertionError(f"waited {deadline_s:g} s in vain: {awaited}; the last was {result!r}")
        time.sleep(LOOK_EVERY_S)
    return result


async def eventually_async(condition: Callable[[], T], awaited: str, deadline_s: float = DEADLINE_S) -> T:
    """Return what the condition returns as soon as it is true, and let other tasks go on; see `eventually`."""
    until_s = time.monotonic() + deadline_s
    while not (result := condition()):
        if time.monotonic() >= until_s:
            raise AssertionError(f"waited {deadline_s:g} s in vain: {awaited}; the last was {result!r}")
        await asyncio.sleep(LOOK_EVERY_S)
    return result


def assert_converged(server: HasState, *clients: HasState, deadline_s: float = DEADLINE_S) -> None:
    """Wait until every client's state is the server's.

    Raises:
        AssertionError: one is not, within the deadline; it says where they differ.
    """
    until_s = time.monotonic() + deadline_s
    while differences := _differences(server, clients):
        if time.monotonic() >= until_s:
            raise AssertionError(f"not the same after {deadline_s:g} s: " + "; ".join(differences[:5]))
        time.sleep(LOOK_EVERY_S)


def _differences(server: HasState, clients: tuple[HasState, ...]) -> list[str]:
    truth = _values(server)
    found = []
    for number, client in enumerate(clients, 1):
        values = _values(client)
        for device_id in sorted(truth.keys() | values.keys()):
            ours, theirs = truth.get(device_id, "nothing"), values.get(device_id, "nothing")
            if ours != theirs:
                found.append(f"client {number} has {theirs!r} for {device_id!r}, the server {ours!r}")
    return found


def _values(owner: HasState) -> dict[str, Any]:
    return {device_id: (twin.seq, twin.value) for device_id, twin in dict(owner.state).items()}
