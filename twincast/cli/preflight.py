"""Whether a server lets a command do what it is for: asked before it waits for what would never come.

A server that cannot say so at the moment is believed to: it decides all the same.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from twincast.client import Rest
from twincast.client.link import Message
from twincast.core.pattern import Pattern
from twincast.core.rights import Action
from twincast.errors import NotPermitted, Unavailable


async def require_publish(url: str, device_id: str) -> None:
    """See that we may say something of a device.

    Raises:
        NotPermitted: we may not.
        TwincastError: the server does not know us.
    """
    await _require(url, "publish", repr(device_id), lambda allowed: allowed.matches(device_id))


async def require_read(url: str, patterns: Sequence[str]) -> None:
    """See that there can be a device among those selected that we may read; all are if there are no patterns.

    Raises:
        NotPermitted: there can be none.
        ValidationFailed: a pattern is none.
        TwincastError: the server does not know us.
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
