"""From the application's start to its end: opens the stores and the hub, runs what drives them, and closes them."""

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from types import FrameType
from typing import Any

import anyio
from starlette.types import ASGIApp, Receive, Scope, Send

from twincast.access.authenticator import Authenticator
from twincast.core.keys import AccessStore
from twincast.core.quotas import Quotas
from twincast.errors import LoginUnusable, TwincastError
from twincast.hub.hub import Hub
from twincast.journal import Stores, open_stores
from twincast.journal.retention import Retention
from twincast.settings import Settings
from twincast.transports.parts import IN_STATE, PICOWS, Parts
from twincast.wire.messages import SizeLimits

logger = logging.getLogger("twincast")

FAST_EDGE = "twincast.server.websocket"
"""uvicorn loads the module that its `--ws` names before it starts the application."""
HUB_DIED = 70  # EX_SOFTWARE of sysexits.h


class Lifespan:
    """Runs the parts of one application."""

    def __init__(self, parts: Parts, settings: Settings, now_utc: Callable[[], str], *, is_edge_known: bool) -> None:
        """Run later.

        Args:
            parts: what the edges share; it gets the hub.
            settings: what the user set.
            now_utc: the clock that updates are stamped by.
            is_edge_known: whether `parts` names the WebSocket edge that serves; else it is looked up at the start.
        """
        self._parts = parts
        self._settings = settings
        self._now_utc = now_utc
        self._is_edge_known = is_edge_known
        self.loop: asyncio.AbstractEventLoop | None = None
        """The event loop of the hub."""
        self.startup_error: TwincastError | None = None
        """Why the application could not start."""

    @asynccontextmanager
    async def run(self, _app: object = None) -> AsyncIterator[dict[str, Any]]:
        """Open everything, and close it when the context is left.

        Raises:
            TwincastError: why it cannot start; also kept as `startup_error`.
        """
        parts = self._parts
        try:
            stores, hub = await self._open()
        except TwincastError as error:
            self.startup_error = error
            raise
        parts.open(hub, stores.access)
        self.loop = asyncio.get_running_loop()
        if not self._is_edge_known and FAST_EDGE in sys.modules:
            parts.edge.name = PICOWS
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(_drive, hub, name="hub")
                group.start_soon(_follow_keys, parts, stores.access, name="admission")
                with _signals_end_responses(parts):
                    yield {IN_STATE: parts}
                    await hub.stop()
                group.cancel_scope.cancel()
        finally:
            parts.close()
            await stores.close()

    async def _open(self) -> tuple[Stores, Hub]:
        settings = self._settings
        async with AsyncExitStack() as undo:
            stores = await open_stores(
                settings.journal,
                memory_max_bytes=settings.memory_journal_max_bytes,
                retention=Retention(settings.keep, settings.keep_bytes, settings.resume_max_entries),
                now_utc=self._now_utc,
            )
            undo.push_async_callback(stores.close)  # unless it has started
            hub = await Hub.over(
                stores.journal,
                open_batch_max_bytes=settings.open_batch_max_bytes,
                resume_max_entries=settings.resume_max_entries,
                quotas=Quotas(
                    devices_max=settings.devices_max,
                    state_max_bytes=settings.state_max_bytes,
                    identity_state_max_bytes=settings.identity_state_max_bytes,
                ),
                sizes=SizeLimits(
                    message_max_bytes=settings.message_max_bytes, value_max_bytes=settings.value_max_bytes
                ),
                snapshot_part_max_bytes=settings.snapshot_part_max_bytes,
                now_utc=self._now_utc,
            )
            keyring = await stores.access.keyring()
            assert keyring is not None  # no version was given: a run before this one may have been on another file
            self._parts.admission.learn(keyring)
            await _fetch_keys(self._parts.admission.authenticator)
            undo.pop_all()
        return stores, hub


class PlainStart:
    """Reports an expected failure of the start in its own words, where the framework would send a traceback."""

    def __init__(self, app: ASGIApp, lifespan: Lifespan) -> None:
        self._app = app
        self._lifespan = lifespan

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the lifespan."""

        async def plain_send(event: MutableMapping[str, Any]) -> None:
            error = self._lifespan.startup_error
            if event["type"] == "lifespan.startup.failed" and error is not None:
                event["message"] = error.message
            await send(event)

        await self._app(scope, receive, plain_send)


@contextmanager
def _signals_end_responses(parts: Parts) -> Iterator[None]:
    """End event streams when the process is told to stop: a server waits for its responses, and these have no end."""
    if threading.current_thread() is not threading.main_thread():
        yield  # an application in a thread gets no signals; its owner ends its streams
        return
    loop = asyncio.get_running_loop()
    before: dict[signal.Signals, tuple[Any, Any]] = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        handle = signal.getsignal(number)
        if callable(handle):

            def end_responses(number: int, frame: FrameType | None, handle: Any = handle) -> None:
                if not loop.is_closed():
                    loop.call_soon_threadsafe(parts.end_responses)
                handle(number, frame)

            signal.signal(number, end_responses)
            before[number] = (end_responses, handle)
    try:
        yield
    finally:
        for number, (ours, theirs) in before.items():
            if signal.getsignal(number) is ours:
                signal.signal(number, theirs)


async def _drive(hub: Hub) -> None:
    """Run the hub. Once nothing drives the state, answers from it would be lies; the journal is on disk."""
    await _run_or_end_the_process(hub.run(), "the state is no longer driven; the server ends here")


async def _follow_keys(parts: Parts, access: AccessStore) -> None:
    """Follow the keys. On a failing disk no key is good; after an unexpected fault the process ends."""
    await _run_or_end_the_process(
        parts.admission.run(access.keyring), "revoked keys would no longer be noticed; the server ends here"
    )


async def _run_or_end_the_process(running: Awaitable[None], last_words: str) -> None:
    try:
        await running
    except Exception:
        logger.critical(last_words, exc_info=True)
        logging.shutdown()
        os._exit(HUB_DIED)


async def _fetch_keys(authenticator: Authenticator) -> None:
    if authenticator.jwks is not None:
        try:
            await authenticator.jwks.refresh()
        except LoginUnusable as error:
            logger.warning("no token is good until the issuer's keys can be fetched: %s", error)
