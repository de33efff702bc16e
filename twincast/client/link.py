"""One WebSocket connection to a server."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal, NamedTuple, Protocol

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import InvalidMessage, InvalidStatus, WebSocketException

from twincast.client.backoff import TIMEOUT_S
from twincast.client.credential import Credential, headers_of
from twincast.client.failures import Retryable, failure_of_status, unreachable
from twincast.errors import WrongFingerprint

CLOSE_TIMEOUT_S = 1.0
"""How long the closing handshake may take. Without one nothing is lost: the server treats a cut connection alike."""

logger = logging.getLogger("twincast.client")
_silent = logging.getLogger("twincast.client.websocket")
_silent.setLevel(logging.INFO)  # at level debug the library logs headers, credentials among them


class Link(NamedTuple):
    """The state of a client's connection: `phase` is "live", or "waiting" for `wait_s` seconds because of `reason`.

    "refused" is final: the server refuses this client because of `reason`, and the client does not connect again.
    """

    phase: Literal["live", "waiting", "refused"]
    reason: str = ""
    wait_s: float = 0.0


class Socket(Protocol):
    """One connection. Both raise ConnectionClosed of websockets when it ends."""

    async def send(self, text: str, /) -> None:
        """Send a message; return once there is room for another one."""

    async def recv(self) -> str | bytes:
        """Wait for a message."""


class _Handshake(open_websocket):
    def process_redirect(self, exc: Exception) -> Exception | str:
        """Follow no redirect: the credential is for one server, and the user should know its address."""
        return exc


@asynccontextmanager
async def open_link(
    base: str, query: str, *, credential: Credential, trust: ssl.SSLContext | None, close_timeout_s: float
) -> AsyncIterator[Socket]:
    """Open one WebSocket connection.

    Raises:
        Retryable: it failed; another attempt may succeed.
        TwincastError: the server refuses this client as it is.
    """
    headers = headers_of(await credential.get())
    try:
        socket = await _Handshake(
            f"ws{base.removeprefix('http')}/ws?{query}",
            additional_headers=headers,
            compression=None,
            max_size=None,
            open_timeout=TIMEOUT_S,
            close_timeout=close_timeout_s,
            ping_interval=None,
            proxy=None,
            logger=_silent,
            ssl=trust,
        )
    except InvalidStatus as error:
        raise _refusal(base, error, credential.kind) from None
    except Exception as error:
        if not isinstance(error, OSError | WebSocketException):
            logger.warning("an attempt to connect failed in an unexpected way", exc_info=error)
        reason = unreachable(base, error, is_odd=isinstance(error, InvalidMessage))
        raise (reason if isinstance(reason, WrongFingerprint) else Retryable(reason)) from None
    try:
        yield socket
    finally:
        await _close(socket, close_timeout_s)


def _refusal(base: str, error: InvalidStatus, credential: str) -> Exception:
    answer = error.response
    location = answer.headers.get("Location", "")
    return failure_of_status(base, answer.status_code, bytes(answer.body or b""), location, credential=credential)


async def _close(socket: ClientConnection, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await socket.close()
    except TimeoutError:
        socket.transport.abort()
