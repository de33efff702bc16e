"""Wait in a test: for a condition, with a deadline, and with words for what was awaited."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from twincast.client import Twin

T = TypeVar("T")
DEADLINE_S = 10.0
DIFFERENCES_MAX = 5
LOOK_EVERY_S = 0.01  # another thread or process gives no event to wait for


class HasState(Protocol):
    """A server of this kit, or a client with a live local copy."""

    @property
    def state(self) -> Mapping[str, Any]:
        """The newest twin of every device, with its `value` and `seq`."""


Seen = tuple[Any, ...]  # a value, and its seq where that is known
State = HasState | Mapping[str, Any]
"""What converges: an object with a `state`, or a mapping with the values by device."""


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


def assert_converged(server: HasState, *clients: State, deadline_s: float = DEADLINE_S) -> None:
    """Wait until every client's state is the server's.

    Raises:
        AssertionError: one is not, within the deadline; it says where they differ.
    """
    until_s = time.monotonic() + deadline_s
    while differences := _differences(server, clients):
        if time.monotonic() >= until_s:
            raise AssertionError(_report(differences, deadline_s))
        time.sleep(LOOK_EVERY_S)


async def assert_converged_async(server: HasState, *clients: State, deadline_s: float = DEADLINE_S) -> None:
    """Wait until every client's state is the server's, and let the clients go on; see `assert_converged`."""
    until_s = time.monotonic() + deadline_s
    while differences := _differences(server, clients):
        if time.monotonic() >= until_s:
            raise AssertionError(_report(differences, deadline_s))
        await asyncio.sleep(LOOK_EVERY_S)


def _report(differences: list[str], deadline_s: float) -> str:
    more = len(differences) - DIFFERENCES_MAX
    shown = differences[:DIFFERENCES_MAX] + ([f"and {more} more"] if more > 0 else [])
    return f"not the same after {deadline_s:g} s: " + "; ".join(shown)


def _differences(server: HasState, clients: tuple[State, ...]) -> list[str]:
    twins = dict(server.state)
    found = []
    for number, client in enumerate(clients, 1):
        if isinstance(client, Mapping):
            truth, seen = _values(twins), _values(client)
        else:
            truth, seen = _twins(twins), _twins(dict(client.state))
        for device_id in sorted(truth.keys() | seen.keys()):
            expected, has = truth.get(device_id), seen.get(device_id)
            if expected != has:
                found.append(f"client {number} has {_words(has)} for {device_id!r}, the server {_words(expected)}")
    return found


def _values(values: Mapping[str, Any]) -> dict[str, Seen]:
    return {
        device_id: (value.value if isinstance(value, Twin) else value,) for device_id, value in dict(values).items()
    }


def _twins(twins: Mapping[str, Any]) -> dict[str, Seen]:
    return {device_id: (twin.value, twin.seq) for device_id, twin in twins.items()}


def _words(seen: Seen | None) -> str:
    match seen:
        case None:
            return "nothing"
        case (value, seq):
            return f"{value!r} (seq {seq})"
        case _:
            return repr(seen[0])
