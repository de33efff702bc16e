"""An error as an HTTP response: its status, its headers and its body."""

import math
from http import HTTPStatus

from twincast.core import counters
from twincast.errors import TooLarge, TooSlow, TwincastError, Unavailable, UpgradeRequired
from twincast.transports.asgi import SAFE_HEADERS, Send
from twincast.wire.problem import CONTENT_TYPE as PROBLEM
from twincast.wire.problem import encode_problem

__all__ = ["PROBLEM", "problem", "refuse", "refusing_headers"]


async def refuse(error: TwincastError, send: Send, body: bytes | None = None) -> None:
    """Send an error as the whole response; `body` is its problem details, with what else there is to say."""
    body = problem(error) if body is None else body
    headers = [(b"content-type", PROBLEM.encode()), (b"content-length", b"%d" % len(body)), *refusing_headers(error)]
    await send({"type": "http.response.start", "status": error.http_status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def refusing_headers(error: TwincastError) -> list[tuple[bytes, bytes]]:
    """Return the headers of a response that refuses with an error."""
    if isinstance(error, Unavailable):
        return [*SAFE_HEADERS, (b"retry-after", b"%d" % math.ceil(error.retry_after_s))]
    if error.http_status == HTTPStatus.UNAUTHORIZED:
        return [*SAFE_HEADERS, (b"www-authenticate", b'Bearer realm="twincast"')]
    if isinstance(error, UpgradeRequired):
        return [
            *SAFE_HEADERS,
            (b"connection", b"Upgrade"),
            (b"upgrade", b"websocket"),
            (b"sec-websocket-version", b"13"),
        ]
    if isinstance(error, TooSlow | TooLarge):
        return [*SAFE_HEADERS, (b"connection", b"close")]  # the rest of the body is not waited for
    return [*SAFE_HEADERS]


def problem(error: TwincastError) -> bytes:
    """Return the body that refuses with an error, and count the refusal: the body is about to be sent."""
    counters.refusals[error.code] += 1
    return encode_problem(error)
