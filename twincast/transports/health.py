"""`/healthz` and `/readyz`: yes or no for whoever asks, by any name, and nothing else."""

from collections.abc import Callable
from http import HTTPStatus

from twincast.transports.asgi import SAFE_HEADERS, Send

METHODS = ("GET", "HEAD")


class Health:
    """Answers probes before anybody is asked who they are: those of a cluster know no credential and no name."""

    def __init__(self, is_ready: Callable[[], bool]) -> None:
        """Make the endpoints; `is_ready` says whether what is accepted now is stored."""
        self._answers = {"/healthz": lambda: True, "/readyz": is_ready}

    def serves(self, method: str, path: str) -> bool:
        """Whether a request is a probe."""
        return path in self._answers and method in METHODS

    async def answer(self, path: str, send: Send) -> None:
        """Answer a probe: 200 and yes, or 503 and no."""
        is_well = self._answers[path]()
        status, body = (HTTPStatus.OK, b"yes\n") if is_well else (HTTPStatus.SERVICE_UNAVAILABLE, b"no\n")
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(body)),
            *SAFE_HEADERS,
        ]
        await send({"type": "http.response.start", "status": int(status), "headers": headers})
        await send({"type": "http.response.body", "body": body})
