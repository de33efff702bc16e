"""The way to a server: its address, one WebSocket connection, its refusals, and when to come back."""

import os
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Literal, NamedTuple
from urllib.parse import urlencode, urlsplit, urlunsplit

import httpx
import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import InvalidHandshake, InvalidMessage, InvalidStatus

from twincast import errors
from twincast.core.model import Position
from twincast.core.subscription import Subscription
from twincast.errors import ServerUnreachable, TwincastError

TIMEOUT_S = 10.0
BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.5, 15.0
PAGE = 1_000
ADDRESS_MAX_CHARS = 4_000
"""Longer ones do not pass every proxy; a client with so many patterns takes all and selects for itself."""

Message = dict[str, Any]
encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(dict[str, Any]).decode


class Link(NamedTuple):
    """How a client is connected: `phase` is "live", or "waiting" for `wait_s` seconds because of `reason`."""

    phase: Literal["live", "waiting"]
    reason: str = ""
    wait_s: float = 0.0


def http_url(url: str) -> str:
    """Return a server's address for REST, whichever way it was written.

    Raises:
        ValueError: it is not an address of a server.
    """
    parts = urlsplit(url if "://" in url else f"http://{url}")
    scheme = {"http": "http", "ws": "http", "https": "https", "wss": "https"}.get(parts.scheme)
    if scheme is None or not parts.hostname:
        raise ValueError(f"expected a server's address such as http://127.0.0.1:8000, not {url!r}")
    return urlunsplit((scheme, parts.netloc, "", "", ""))


def query_of(subscription: Subscription, since: Position | None) -> str:
    """Return the parameters that ask a server for at least what a subscription selects."""
    patterns = sorted(text for text, _ in subscription.rules)
    kinds = sorted({kind for _, kinds in subscription.rules for kind in kinds})
    parameters: list[tuple[str, Any]] = [("page", PAGE), ("mode", subscription.mode)]
    if subscription.max_hz is not None:
        parameters.append(("max_hz", subscription.max_hz))
    if since is not None:
        parameters.append(("since", since))
    selecting = [("devices", text) for text in patterns or [""]] + [("kinds", kind) for kind in kinds]
    query = urlencode(parameters + selecting)
    return query if len(query) <= ADDRESS_MAX_CHARS else urlencode([*parameters, ("devices", "*")])


Token = str | Callable[[], str | Awaitable[str]] | None
"""A credential, or what gets a new one for each connection; None for what TWINCAST_TOKEN says, if anything."""


async def headers_of(token: Token) -> dict[str, str]:
    """Return the header that says who a program is."""
    if callable(token):
        given = token()
        text = given if isinstance(given, str) else await given
    else:
        text = token or os.environ.get("TWINCAST_TOKEN", "")
    return {"Authorization": f"Bearer {text}"} if text else {}


@asynccontextmanager
async def open_link(
    base: str, query: str, *, token: Token = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[ClientConnection]:
    """Open one WebSocket connection.

    Raises:
        ServerUnreachable: nobody answers there, or somebody who is not a twincast server; or it has no room now.
        Unauthenticated: the credential is not good there.
    """
    address = f"ws{base.removeprefix('http')}/ws?{query}"
    try:
        socket = await open_websocket(
            address,
            additional_headers=await headers_of(token),
            compression=None,
            max_size=None,
            open_timeout=TIMEOUT_S,
            ping_interval=None,
            proxy=None,
            ssl=tls if base.startswith("https:") else None,
        )
    except InvalidStatus as error:
        raise _refusal(base, error) from None
    except (OSError, TimeoutError, InvalidHandshake, InvalidMessage) as error:
        raise unreachable(base, error) from None
    try:
        yield socket
    finally:
        await socket.close()


def _refusal(base: str, answer: InvalidStatus) -> TwincastError:
    try:
        problem = decode(answer.response.body or b"")
        error = error_of(problem["code"], problem["detail"])
    except (msgspec.DecodeError, KeyError):
        return unreachable(base, answer)
    return ServerUnreachable(error.message) if error.retryable else error


def wait_s(attempt: int) -> float:
    """Return how long to wait before another attempt: a random part of a bound that doubles ("full jitter").

    So a fleet does not return all at once.
    """
    return random.uniform(0, min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** min(attempt, 10)))


def unreachable(base: str, error: Exception) -> ServerUnreachable:
    """Say in words why a server could not be talked to."""
    if isinstance(error, (httpx.ConnectError, ConnectionRefusedError)) or "Connect call failed" in str(error):
        return ServerUnreachable(f"nobody answers at {base}; `twincast serve` starts a server there")
    return ServerUnreachable(f"what answers at {base} does not speak like a twincast server: {error}")


def error_of(code: str, message: str) -> TwincastError:
    """Return the error that a server means by a code; a plain TwincastError for one that this version does not know."""
    kind = _KINDS.get(code)
    return kind(message) if kind else TwincastError(f"{code}: {message}")


def _kinds(kind: type[TwincastError]) -> Iterable[type[TwincastError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _kinds(child)


_KINDS = {kind.code: kind for kind in _kinds(errors.TwincastError)}
