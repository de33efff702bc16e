"""A real server in the test's own process, on a free port."""

import asyncio
import socket
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Self, TypeVar

import msgspec

from twincast.app import App, create_app
from twincast.client import Twin
from twincast.errors import JournalUnusable
from twincast.hub.hub import Hub, system_now_utc
from twincast.journal.url import JournalUrl
from twincast.server.process import Server as ServerProcess
from twincast.server.process import certificate_of, configured, fast_edge, listen
from twincast.settings import Settings
from twincast.testing import keys
from twincast.testing.clock import Clock
from twincast.testing.waiting import eventually
from twincast.wire.messages import encode

T = TypeVar("T")
LOG_MAX = 1_000_000


class Server:
    """The whole server, in a thread: journal, hub, REST, both edges. Use it as a context, or call `stop`.

    If clients run in the event loop of the test, use `async with`, and call `stop` and `restart` by
    `asyncio.to_thread`: a server that stops waits for its clients' closing handshakes.
    """

    def __init__(
        self, journal: str = "memory:", *, clock: Clock | None = None, edge: str = "picows", **settings: Any
    ) -> None:
        """Start.

        Args:
            journal: `memory:`, `sqlite:PATH`, or the URL of a shared log, as `Nats.url` makes it.
            clock: the source of timestamps; the time of day if None.
            edge: "picows" or "portable".
            settings: any other setting of the server, by name.

        Raises:
            TwincastError: it could not start, because of a journal that cannot be opened, for example.
        """
        self._settings = Settings(journal=journal, port=0, **settings)
        self._now_utc = clock or system_now_utc
        self._edge = fast_edge() if edge == "picows" else None
        self.port = self._kept_port()
        self.start()

    @property
    def url(self) -> str:
        """Where REST and the pages are."""
        return f"http{'' if self._settings.tls_cert is None else 's'}://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        """Where the WebSocket is."""
        return f"ws{'' if self._settings.tls_cert is None else 's'}://127.0.0.1:{self.port}/ws"

    @property
    def state(self) -> Mapping[str, Twin]:
        """The newest twin of every device, values decoded. Raises what `log` raises."""
        return self._ask(self._state)

    def log(self, since: int = 0) -> list[dict[str, Any]]:
        """Return every entry after a seq, as events.

        Raises:
            RuntimeError: the server is stopped.
            Truncated: a journal in memory no longer reaches back to `since`.
        """
        return self._ask(lambda hub: self._log(hub, since))

    def add_key(self, name: str = "key", *, rate_per_s: float | None = None, **grants: Sequence[str]) -> str:
        """Add an API key; return its secret once the server accepts it. From the first key on the server asks for one.

        Args:
            name: its name, for `revoke_key`.
            rate_per_s: how many updates a second it may send; the server's setting if None.
            grants: patterns by right, such as `read=["lab/*"], publish=["lab/lamp"]`.

        Raises:
            JournalUnusable: the journal is in memory, where keys are not stored.
            ValidationFailed: a right does not exist, no right was given, or the name is in use.
        """
        secret, version = keys.add(self._journal_with_keys, name, rate_per_s=rate_per_s, **grants)
        self._until_keys_are_known(version)
        return secret

    def revoke_key(self, name: str = "key") -> None:
        """Revoke a key; return once the server has closed the connections with it.

        Raises:
            JournalUnusable: the journal is in memory, where keys are not stored.
            ValidationFailed: there is no such key in use.
        """
        self._until_keys_are_known(keys.revoke(self._journal_with_keys, name))

    def start(self) -> None:
        """Start again after `stop`, on the same port and journal."""
        self._listener = listen("127.0.0.1", self.port)
        self.port = self._listener.getsockname()[1]
        self._app: App = create_app(self._settings, edge="picows" if self._edge else "portable", now_utc=self._now_utc)
        config = configured(self._app, self._edge)
        self._server = ServerProcess(config, self._app, certificate_of(self._settings))
        self._thread = threading.Thread(target=self._run, name="twincast server", daemon=True)
        self._thread.start()
        parts = self._app.parts
        eventually(lambda: (self._server.started and parts.is_running) or not self._thread.is_alive(), "it is ready")
        if self._app.startup_error is not None:
            raise self._app.startup_error

    def stop(self) -> None:
        """Stop, as Ctrl-C does: what was accepted is stored, and clients reconnect when the server is there again."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._app.parts.told_to_stop)
            self._server.should_exit = True
            self._thread.join()
        self._listener.close()

    def restart(self) -> None:
        """Stop and start. A journal in memory becomes another, empty log."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.stop)

    def _kept_port(self) -> int:
        """Return a port that the system gives to nobody else while this server is stopped; 0 if it keeps none so.

        Linux keeps it for a socket that has the address, and does not listen; whoever names it may listen all the same.
        """
        if sys.platform != "linux":
            return 0
        keeping = socket.socket()
        keeping.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeping.bind(("127.0.0.1", 0))
        weakref.finalize(self, keeping.close)
        port: int = keeping.getsockname()[1]
        return port

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=self._server.config.get_loop_factory()) as runner:
            self._loop = runner.get_loop()
            try:
                runner.run(self._server.serve(sockets=[self._listener]))
            except SystemExit:
                return  # it did not start; `start` raises why

    async def _state(self, hub: Hub) -> Mapping[str, Twin]:
        return {
            device_id: Twin(
                *(msgspec.json.decode(twin.value), twin.updated_at_utc, twin.seq, twin.source),
                twin.measured_at_utc or None,
                twin.clock or None,
            )
            for device_id, twin in hub.state.twins.items()
        }

    async def _log(self, hub: Hub, since: int) -> list[dict[str, Any]]:
        return [msgspec.json.decode(encode(entry)) for entry in await hub.read(since, LOG_MAX)]

    @property
    def _journal_with_keys(self) -> str:
        if JournalUrl.parse(self._settings.journal).kind == "memory":
            raise JournalUnusable('a journal in memory keeps no keys; `Server("sqlite:PATH")` has one on disk')
        return self._settings.journal

    def _until_keys_are_known(self, version: int) -> None:
        """Wait until the server has the keys of a version, and all that its journal has."""

        async def knows(hub: Hub) -> bool:
            parts = self._app.parts
            known = parts.admission.authenticator.version
            return known >= version and await parts.access.keyring(known) is None

        if self._thread.is_alive():  # otherwise it reads them when it starts
            eventually(lambda: self._ask(knows), "the server knows its keys")

    def _ask(self, question: Callable[[Hub], Coroutine[Any, Any, T]]) -> T:
        parts = self._app.parts
        if not parts.is_running or not self._thread.is_alive():
            raise RuntimeError("the server is stopped; its state and log can be read while it runs")
        return asyncio.run_coroutine_threadsafe(question(parts.hub), self._loop).result()
