"""A real server in the test's own process, on a free port."""

import asyncio
import threading
from collections.abc import Coroutine, Mapping
from typing import Any, Self, TypeVar

import msgspec
import uvicorn

from twincast.app import App, create_app
from twincast.client import Twin
from twincast.core.messages import encode
from twincast.hub import system_now_utc
from twincast.server import configured, fast_edge, listen
from twincast.settings import Settings
from twincast.testing.clock import Clock
from twincast.testing.waiting import eventually

T = TypeVar("T")
LOG_MAX = 1_000_000


class Server:
    """The whole server, in a thread: journal, hub, REST, both edges. Use it as a context, or call `stop`."""

    def __init__(
        self, journal: str = "memory:", *, clock: Clock | None = None, edge: str = "picows", **settings: Any
    ) -> None:
        """Start.

        Args:
            journal: `memory:` or `sqlite:PATH`.
            clock: what updates are stamped by; the time of day if None.
            edge: "picows" or "portable".
            settings: anything else that Settings takes.
        """
        self._settings = Settings(journal=journal, port=0, **settings)
        self._now_utc = clock or system_now_utc
        self._edge = fast_edge() if edge == "picows" else None
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        """Where REST and the pages are."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        """Where the WebSocket is."""
        return f"ws://127.0.0.1:{self.port}/ws"

    @property
    def state(self) -> Mapping[str, Twin]:
        """The newest twin of every device, values decoded."""
        return self._in_loop(self._state())

    def log(self, since: int = 0) -> list[dict[str, Any]]:
        """Return every change after a seq, as events."""
        return self._in_loop(self._log(since))

    def start(self) -> None:
        """Start again after `stop`, on the same port and journal."""
        self._listener = listen("127.0.0.1", self.port)
        self.port = self._listener.getsockname()[1]
        self._app: App = create_app(self._settings, edge="picows" if self._edge else "portable", now_utc=self._now_utc)
        self._server = uvicorn.Server(configured(self._app, self._edge))
        self._thread = threading.Thread(target=self._run, name="twincast server", daemon=True)
        self._thread.start()
        eventually(lambda: self._server.started or not self._thread.is_alive(), "the server starts")
        if self._app.startup_error is not None:
            raise self._app.startup_error

    def stop(self) -> None:
        """Stop, as Ctrl-C does: what was accepted is stored, and clients are told to come back."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._app.events.end_streams)
            self._server.should_exit = True
            self._thread.join()
        self._listener.close()

    def restart(self) -> None:
        """Stop and start. A journal in memory begins anew, and is another log."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=self._server.config.get_loop_factory()) as runner:
            self._loop = runner.get_loop()
            try:
                runner.run(self._server.serve(sockets=[self._listener]))
            except SystemExit:
                return  # it did not start; `start` says why

    async def _state(self) -> Mapping[str, Twin]:
        assert self._app.hub is not None
        twins = self._app.hub.state.twins
        return {
            device_id: Twin(msgspec.json.decode(twin.value), twin.updated_at_utc, twin.seq, twin.source)
            for device_id, twin in twins.items()
        }

    async def _log(self, since: int) -> list[dict[str, Any]]:
        assert self._app.hub is not None
        return [msgspec.json.decode(encode(entry)) for entry in await self._app.hub.read(since, LOG_MAX)]

    def _in_loop(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
