"""The fast WebSocket edge by a short name: `uvicorn main:app --ws twincast.fast:Edge`."""

import asyncio
import logging
from typing import Any

import uvicorn
from uvicorn.protocols.websockets.auto import AutoWebSocketsProtocol
from uvicorn.server import ServerState

from twincast.server.websocket import PicowsEdge
from twincast.transports.parts import IN_STATE

logger = logging.getLogger("twincast")

ELSEWHERE = (
    "the fast WebSocket edge serves an application that is twincast itself. Around this one there is another, whose"
    " routes and middleware it would bypass, so uvicorn's own edge serves here"
)


class Edge:
    """What uvicorn makes for each upgrade: the fast edge, or its own where twincast is not the whole application.

    The fast edge takes a connection before any application sees it, so it cannot know where another application has
    mounted twincast, or which clients it would admit.
    """

    _has_said_so = False

    def __new__(cls, config: uvicorn.Config, server_state: ServerState, app_state: dict[str, Any]) -> Any:
        """Return the protocol of one connection."""
        if IN_STATE in app_state:
            return PicowsEdge(config, server_state, app_state)
        if not Edge._has_said_so:
            Edge._has_said_so = True
            logger.warning(ELSEWHERE)
        assert AutoWebSocketsProtocol is not None  # websockets comes with twincast
        protocol: asyncio.Protocol = AutoWebSocketsProtocol(config, server_state, app_state)
        return protocol
