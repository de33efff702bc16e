"""Ask a server for the right that a command needs, before the command waits for what would never come.

If the server is not there to ask, the command goes on: the server decides in any case.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from twincast.client import Rest
from twincast.client.message import Message
from twincast.core.pattern import Pattern
from twincast.core.rights import Action
from twincast.errors import NotPermitted, Unavailable


async def require_publish(url: str, device_id: str) -> None:
    """Check the right to publish a device's readings.

    Raises:
        NotPermitted: the right is missing.
        TwincastError: the server does not accept the credential.
    """
    await _require(url, "publish", repr(device_id), lambda allowed: allowed.matches(device_id))


async def require_read(url: str, patterns: Sequence[str]) -> None:
    """Check the right to read at least one device that the patterns could select; no patterns select all.

    Raises:
        NotPermitted: there can be no such device.
        ValidationFailed: a pattern is not one.
        TwincastError: the server does not accept the credential.
    """
    wanted = [Pattern(text) for text in patterns or ("*",)]
    named = ", ".join(map(repr, patterns))
    await _require(url, "read", named, lambda allowed: any(map(allowed.meets, wanted)))


async def _require(url: str, action: Action, named: str, suffices: Callable[[Pattern], bool]) -> None:
    with suppress(Unavailable):
        status = await asyncio.to_thread(_status, url)
        if not any(suffices(Pattern(text)) for text in status["rights"].get(action, ())):
            raise NotPermitted(f"{status['identity']} has no right to {action} {named}".rstrip())


def _status(url: str) -> Message:
    with Rest(url) as rest:
        return rest.status()
