"""From the application's start to its end: opens the stores and the hub, runs what drives them, and closes them.

A log in a file is open before the server listens. One that is shared over a network may be long in coming: the server
listens meanwhile, and says to everybody that it is not ready.
"""

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, MutableMapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from starlette.types import ASGIApp, Receive, Scope, Send

from twincast.access.authenticator import Authenticator
from twincast.core.keys import AccessStore
from twincast.core.opening import Opening
from twincast.core.quotas import Quotas
from twincast.errors import JournalUnavailable, LoginUnusable, LogReplaced, TwincastError
from twincast.hub.hub import Hub
from twincast.hub.past import Past
from twincast.journal.jetstream.commit import FOLD_VERSION
from twincast.journal.retention import Retention
from twincast.journal.stores import Stores, open_stores
from twincast.journal.url import catches_up
from twincast.later import later
from twincast.settings import Settings
from twincast.settings.amounts import pattern_and_seconds
from twincast.settings.shared import digest_of
from twincast.transports.parts import IN_STATE, PICOWS, Parts
from twincast.wire.messages import SizeLimits

if TYPE_CHECKING:  # only a shared log takes NATS
    from twincast.cluster import membership, trimming
    from twincast.journal.jetstream import link
    from twincast.transports.nats import serving
else:
    membership = later("twincast.cluster.membership")
    trimming = later("twincast.cluster.trimming")
    link, serving = later("twincast.journal.jetstream.link"), later("twincast.transports.nats.serving")

logger = logging.getLogger("twincast")

FAST_EDGE = "twincast.server.websocket"
"""uvicorn loads the module that its `--ws` names before it starts the application."""
HUB_DIED = 70  # EX_SOFTWARE of sysexits.h
OPEN_AGAIN_S = 1.0
"""After so long a shared log that could not be reached is tried again."""
TELL_S = 5.0
"""How often the server's log says how far it is, while it reads a shared log."""


def retention_of(settings: Settings) -> Retention:
    """Return how much of the log the settings keep."""
    return Retention(
        keep_s=settings.keep,
        keep_bytes=settings.keep_bytes,
        keep_entries=settings.resume_max_entries,
        partition_entries=settings.partition_entries,
        keep_rollups_s=settings.keep_rollups,
        keep_for=tuple(map(pattern_and_seconds, settings.keep_for)),
    )


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
        self._openings = Openings(parts, settings, now_utc)
        self._is_edge_known = is_edge_known
        self.waits_for_log = not catches_up(settings.journal)
        """Whether the start is over only when the log is open. If not, the server listens meanwhile, and says so."""
        self.end_server: Callable[[], None] = _end_by_signal
        """Ends the server, in order, when the log cannot be opened after the start."""
        self.loop: asyncio.AbstractEventLoop | None = None
        """The event loop of the hub."""
        self.startup_error: TwincastError | None = None
        """Why the application could not start, or not open its log after that."""

    @asynccontextmanager
    async def run(self, _app: object = None) -> AsyncIterator[dict[str, Any]]:
        """Open everything, and close it when the context is left.

        Raises:
            TwincastError: why it cannot start; also kept as `startup_error`.
        """
        parts = self._parts
        self.loop = asyncio.get_running_loop()
        if not self._is_edge_known and FAST_EDGE in sys.modules:
            parts.edge.name = PICOWS
        parts.expect(opening := Opening())
        keeping = asyncio.create_task(self._openings.keep(opening), name="hub")
        try:
            if self.waits_for_log:
                await self._first_opening(keeping)
            keeping.add_done_callback(self._end_if_failed)
            with _signals_end_responses(parts):
                yield {IN_STATE: parts}
                if parts.is_running:
                    await parts.hub.stop()
        finally:
            keeping.remove_done_callback(self._end_if_failed)
            error = await _cancelled(keeping)
        if error is not None and error is not self.startup_error:
            raise error

    async def _first_opening(self, keeping: "asyncio.Task[None]") -> None:
        opened = asyncio.ensure_future(self._openings.opened.wait())
        try:
            await asyncio.wait({keeping, opened}, return_when=asyncio.FIRST_COMPLETED)
            if keeping.done():
                keeping.result()
        except TwincastError as error:
            self.startup_error = error
            raise
        finally:
            opened.cancel()

    def _end_if_failed(self, keeping: "asyncio.Task[None]") -> None:
        """End the server whose log cannot be opened, with the reason in words; a fault of ours ends it at once."""
        error = None if keeping.cancelled() else keeping.exception()
        if isinstance(error, TwincastError):
            self.startup_error = error
            logger.critical("the server ends: %s", error)
            self.end_server()
        elif error is not None:
            _end_the_process("the log could not be opened; the server ends here", error)


class Openings:
    """Opens the stores and a hub over them and drives it; and does so again whenever the log was replaced.

    - **opening**: `parts` has no hub and says how far the log is. Where the log is shared, one that cannot be reached
      is tried again.
    - **open**: `parts` has the hub. LogReplaced ends all that was served, closes the stores and leads back to opening.
    """

    def __init__(self, parts: Parts, settings: Settings, now_utc: Callable[[], str]) -> None:
        self._parts = parts
        self._settings = settings
        self._now_utc = now_utc
        self._is_shared = catches_up(settings.journal)
        self.opened = asyncio.Event()
        """Set while there is a hub."""

    async def keep(self, opening: Opening) -> None:
        """Keep a hub open, until cancelled.

        Args:
            opening: the first one.

        Raises:
            TwincastError: why the log cannot be opened, now or later.
        """
        try:
            while True:
                stores, hub = await self._open_in_the_end(opening)
                servers = self._membership(stores, hub)
                try:
                    self._parts.stored_body_max_bytes = self._lowered_body_max_bytes(stores)
                    self._parts.open(hub, stores.access, servers, Past(stores.history, time.monotonic))
                    self.opened.set()
                    replaced = await _driven(self._parts, hub, stores.access, servers, self._subjects(stores, servers))
                    logger.error("the log is another one now, and is opened anew: %s", replaced)
                    self._parts.expect(opening := Opening())
                    self._parts.end_all(replaced)
                finally:
                    self.opened.clear()
                    await stores.close()
        finally:
            self._parts.close()

    def _lowered_body_max_bytes(self, stores: Stores) -> int | None:
        """Return NATS's limit of what is stored whole, if it is below that of a body; say so in the log."""
        body_max_bytes = self._settings.body_max_bytes
        if stores.shared is None or (max_bytes := stores.shared.payload_max_bytes) >= body_max_bytes:
            return None
        logger.warning(
            "a request's body may have %d bytes here, not %d: by its max_payload, NATS takes no larger messages",
            max_bytes,
            body_max_bytes,
        )
        return max_bytes

    async def _open_in_the_end(self, opening: Opening) -> tuple[Stores, Hub]:
        if not self._is_shared:
            return await self._open(opening)
        logger.info("the log is being opened; until all of it is read, requests are answered with not_ready")
        telling = asyncio.create_task(_tell(opening), name="opening")
        said = set[str]()
        try:
            while True:
                try:
                    stores, hub = await self._open(opening)
                except (JournalUnavailable, LogReplaced) as error:
                    opening.problem = error.message
                    if error.message not in said:
                        logger.warning("the log cannot be opened yet, and is tried again: %s", error)
                        said.add(error.message)
                else:
                    logger.info("ready: the log is read, up to entry %d", hub.state.seq)
                    return stores, hub
                await asyncio.sleep(OPEN_AGAIN_S)
        finally:
            telling.cancel()

    def _membership(self, stores: Stores, hub: Hub) -> "membership.Membership | None":
        """Return this server as one of those on a shared log; None where the log is its own."""
        shared, parts = stores.shared, self._parts
        if shared is None:
            return None

        def standing() -> "membership.Standing":
            return membership.Standing(
                epoch=hub.state.epoch,
                seq=hub.state.seq,
                stream_seq=shared.place.stream_seq,
                stored_stream_seq=shared.stored_stream_seq,
                silent_s=shared.silent_s,
                clients=len(parts.sessions),
                is_ready=parts.is_ready,
            )

        own = membership.Self(
            id=shared.server_id,
            name=shared.server_name,
            version=parts.version,
            fold=FOLD_VERSION,
            since_utc=hub.now_utc(),
            settings=digest_of(self._settings),
        )
        servers = membership.Membership(
            shared.link, shared.address.name, own, standing, admission=parts.admission, checks=shared.checks
        )
        servers.copied = shared.copied
        servers.trim = trimming.StreamTrim(
            shared.link,
            shared.address,
            space=shared.space,
            members=lambda: [each for each in servers.members() if each.heartbeat.epoch == hub.state.epoch],
            is_first=lambda: servers.peers.is_first,
            erasing=shared,
            keeps_all=self._settings.keep is None and self._settings.keep_bytes is None,
        )
        return servers

    def _subjects(
        self, stores: Stores, servers: "membership.Membership | None"
    ) -> "Callable[[], Coroutine[Any, Any, None]] | None":
        """Return what serves NATS's subjects beside a shared log; None where that is off."""
        key_name, shared = self._settings.nats_key, stores.shared
        if key_name is None or shared is None or servers is None:
            return None
        address = shared.address
        connect = partial(link.Link.connect, address, purpose="twincast, subjects")
        return partial(serving.serve, self._parts, connect, servers, name=address.name, key_name=key_name)

    async def _open(self, opening: Opening) -> tuple[Stores, Hub]:
        settings = self._settings
        async with AsyncExitStack() as undo:
            stores = await open_stores(
                settings.journal,
                memory_max_bytes=settings.memory_journal_max_bytes,
                retention=retention_of(settings),
                now_utc=self._now_utc,
                opening=opening,
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
                is_shared=stores.shared is not None,
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
                    loop.call_soon_threadsafe(parts.told_to_stop)
                handle(number, frame)

            signal.signal(number, end_responses)
            before[number] = (end_responses, handle)
    try:
        yield
    finally:
        for number, (ours, theirs) in before.items():
            if signal.getsignal(number) is ours:
                signal.signal(number, theirs)


async def _tell(opening: Opening) -> None:
    """Say in the log, every few seconds, how far an opening is."""
    told = ""
    while True:
        await asyncio.sleep(TELL_S)
        if told != (told := str(opening)):
            logger.info("not ready: %s", opening)


async def _driven(
    parts: Parts,
    hub: Hub,
    access: AccessStore,
    servers: "membership.Membership | None",
    subjects: "Callable[[], Coroutine[Any, Any, None]] | None",
) -> LogReplaced:
    """Drive a hub, and follow its keys and the other servers, until cancelled, or until the log is another one.

    Then return the error.

    Once nothing drives the state, answers from it would be lies; the journal is on disk. And on a failing disk no key
    is good. So after an unexpected fault of either the process ends.
    """
    following = [asyncio.create_task(_follow_keys(parts, access), name="admission")]
    if servers is not None:
        following.append(asyncio.create_task(_take_part(servers), name="other servers"))
    if subjects is not None:
        following.append(asyncio.create_task(_serve_subjects(subjects), name="nats"))
    try:
        await hub.run()
        raise AssertionError("a hub runs until it is cancelled")
    except LogReplaced as replaced:
        return replaced
    except Exception as error:
        _end_the_process("the state is no longer driven; the server ends here", error)
    finally:
        for task in following:
            await _cancelled(task)


async def _follow_keys(parts: Parts, access: AccessStore) -> None:
    try:
        await parts.admission.run(access.keyring)
    except Exception as error:
        _end_the_process("revoked keys would no longer be noticed; the server ends here", error)


async def _take_part(servers: "membership.Membership") -> None:
    try:
        await servers.run()
    except Exception as error:
        _end_the_process("the other servers on the log are no longer heard; the server ends here", error)


async def _serve_subjects(subjects: "Callable[[], Coroutine[Any, Any, None]]") -> None:
    try:
        await subjects()
    except Exception as error:
        _end_the_process("NATS's subjects are no longer served; the server ends here", error)


def _end_the_process(last_words: str, error: BaseException) -> NoReturn:
    expected = _alone_in(error)
    if isinstance(expected, TwincastError):  # it says what to do, which a traceback would bury
        logger.critical("%s: %s", last_words, expected)
    else:
        logger.critical(last_words, exc_info=error)
    logging.shutdown()
    os._exit(HUB_DIED)


def _alone_in(error: BaseException) -> BaseException:
    """Return the one error that groups hold; the group if there are several."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _end_by_signal() -> None:
    """End whatever server this application is in, in its own order: it knows nothing of us but signals."""
    signal.raise_signal(signal.SIGTERM)


async def _cancelled(task: "asyncio.Task[None]") -> BaseException | None:
    """Cancel a task; return what it raised instead, once it has ended."""
    task.cancel()
    await asyncio.wait({task})
    return None if task.cancelled() else task.exception()


async def _fetch_keys(authenticator: Authenticator) -> None:
    if authenticator.jwks is not None:
        try:
            await authenticator.jwks.refresh()
        except LoginUnusable as error:
            logger.warning("no token is good until the issuer's keys can be fetched: %s", error)
