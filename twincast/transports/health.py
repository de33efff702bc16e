"""`/healthz` and `/readyz`: yes or no, to everyone and under any name, and nothing else."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus

from starlette.types import ASGIApp

from twincast.transports.asgi import SAFE_HEADERS, Receive, Scope, Send

METHODS = frozenset({"GET", "HEAD"})


class Health:
    """Answers probes before anything is checked: those of a cluster know no credential and no host name."""

    def __init__(self, app: ASGIApp, is_ready: Callable[[], bool]) -> None:
        """Answer probes in front of `app`; `is_ready` says whether what is accepted now is stored."""
        self._app = app
        self._answers: dict[str, Callable[[], bool]] = {"/healthz": lambda: True, "/readyz": is_ready}

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one request."""
        is_well = self._answers.get(scope["path_here"])
        if is_well is None or scope["method"] not in METHODS:
            return self._app(scope, receive, send)
        return _answer(send, is_well=is_well())


async def _answer(send: Send, *, is_well: bool) -> None:
    status, body = (HTTPStatus.OK, b"yes\n") if is_well else (HTTPStatus.SERVICE_UNAVAILABLE, b"no\n")
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
        *SAFE_HEADERS,
    ]
    await send({"type": "http.response.start", "status": int(status), "headers": headers})
    await send({"type": "http.response.body", "body": body})
