"""The way to a server: one WebSocket connection, and the trust that it stands on."""

import asyncio
import logging
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal, NamedTuple, Protocol

import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import InvalidStatus, WebSocketException

from twincast.client.backoff import TIMEOUT_S
from twincast.client.credential import Credential, headers_of
from twincast.client.failures import Retried, of_status, unreachable
from twincast.client.pin import pinned
from twincast.errors import ValidationFailed, WrongFingerprint

CLOSE_TIMEOUT_S = 1.0
"""How long a goodbye may take. Who says none is not missed: the server takes a lost connection for one."""

Message = dict[str, Any]
encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(dict[str, Any]).decode

logger = logging.getLogger("twincast.client")
_silent = logging.getLogger("twincast.client.websocket")
_silent.setLevel(logging.INFO)  # below that the library writes down headers, and with them credentials


class Link(NamedTuple):
    """How a client is connected: `phase` is "live", or "waiting" for `wait_s` seconds because of `reason`.

    "refused" is the last one: the server does not want this client, because of `reason`, and it does not come back.
    """

    phase: Literal["live", "waiting", "refused"]
    reason: str = ""
    wait_s: float = 0.0


class Socket(Protocol):
    """One connection. Both raise ConnectionClosed of websockets when it ends."""

    async def send(self, text: str, /) -> None:
        """Send a message; return once there is room for the next one."""

    async def recv(self) -> str | bytes:
        """Wait for a message."""


class _Handshake(open_websocket):
    def process_redirect(self, exc: Exception) -> Exception | str:
        """Follow nobody elsewhere: not with a credential, and not without saying so."""
        return exc


def trust_of(base: str, tls: ssl.SSLContext | None, fingerprint: str | None = None) -> ssl.SSLContext | None:
    """Return how a server's certificate is checked; None without TLS.

    As given, by `tls` or by `fingerprint`; else as TWINCAST_FINGERPRINT says, if anything; else as the system does.

    Raises:
        ValidationFailed: a fingerprint is none, is one of two ways, or nothing is there that it could be compared with.
    """
    if fingerprint and tls is not None:
        raise ValidationFailed("`tls` and `fingerprint` are two ways to trust a server; one of them")
    pin = fingerprint or ("" if tls is not None else os.environ.get("TWINCAST_FINGERPRINT", ""))
    if pin:
        context = pinned(pin)
        if not base.startswith("https:"):
            raise ValidationFailed(
                f"a fingerprint is of a server that speaks TLS, so its address begins with https://; not {base}"
            )
        return context
    if not base.startswith("https:"):
        return None
    return tls or ssl.create_default_context()


@asynccontextmanager
async def open_link(
    base: str, query: str, *, credential: Credential, trust: ssl.SSLContext | None, close_timeout_s: float
) -> AsyncIterator[Socket]:
    """Open one WebSocket connection.

    Raises:
        Retried: there is none now; the next attempt may do better.
        TwincastError: the server does not want this client as it is.
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
        reason = unreachable(base, error)
        raise (reason if isinstance(reason, WrongFingerprint) else Retried(reason)) from None
    try:
        yield socket
    finally:
        await _say_goodbye(socket, close_timeout_s)


def _refusal(base: str, error: InvalidStatus, credential: str) -> Exception:
    answer = error.response
    location = answer.headers.get("Location", "")
    return of_status(base, answer.status_code, bytes(answer.body or b""), location, credential=credential)


async def _say_goodbye(socket: ClientConnection, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await socket.close()
    except TimeoutError:
        socket.transport.abort()
