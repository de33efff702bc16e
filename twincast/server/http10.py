"""Answers to HTTP/1.0, which has no chunks (RFC 9112, 6.1): an answer without a length ends with its connection."""

from typing import Any

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


def unframed(app: ASGI3Application, cycle: RequestResponseCycle) -> ASGI3Application:
    """Wrap an application so that uvicorn writes its answer as it is, not in chunks."""

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        has_length = True

        async def send_unframed(event: Any) -> None:
            nonlocal has_length
            if event["type"] == "http.response.start":
                has_length = any(name.lower() == b"content-length" for name, _ in event.get("headers", ()))
                cycle.chunked_encoding = None if has_length else False
            elif not has_length:
                cycle.expected_content_length = len(event.get("body", b""))
            await send(event)

        await app(scope, receive, send_unframed)

    return serve
