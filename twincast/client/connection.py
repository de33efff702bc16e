"""The connection that keeps itself alive: it reconnects, resumes at the cursor, and sends again what waits."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import msgspec
from websockets.exceptions import ConnectionClosed

from twincast.client.address import is_too_long, query_of
from twincast.client.backoff import TIMEOUT_S, Backoff
from twincast.client.failures import Retryable, error_of, failure_of_close, failure_of_login, not_twincast
from twincast.client.incoming import Incoming
from twincast.client.limits import Limits
from twincast.client.link import Link, Socket
from twincast.client.message import Message, decode, encode
from twincast.client.outgoing import Outgoing
from twincast.client.questions import OnAnswer
from twincast.client.subscriptions import Subscriptions
from twincast.core.subscription import Subscription
from twincast.errors import ServerUnreachable, TwincastError, Unauthenticated

PING_INTERVAL_S, SILENCE_MAX_S = 10.0, 25.0
WIDE = Subscription()
_PING = encode({"type": "ping"}).decode()

logger = logging.getLogger("twincast.client")

OpenLink = Callable[[str], AbstractAsyncContextManager[Socket]]
"""Opens a WebSocket to the address with these parameters. Raises Retryable, or a TwincastError that is final."""


class _OddAnswer(Exception):
    """The server sent what no twincast server sends, or too little to continue with."""

    def __init__(self, error: TwincastError) -> None:
        super().__init__(error.message)
        self.error = error


class Connection:
    """A client's connection. What it receives goes to `incoming`, what it sends comes from `outgoing`.

    States, and what leads from one to the next (`on_link` reports those in parentheses):

    - *connecting*: the WebSocket is opened, by an address that asks for all that is needed, from the cursor on.
    - *greeting*: it is open. The server sends its greeting, and its state until that is complete.
    - *live* ("live"): messages pass both ways. A ping every PING_INTERVAL_S finds a dead network.
    - *waiting* ("waiting"): any failure in one of these states that another attempt may overcome (Retryable) leads
      here, and the end of a back-off to *connecting* again.
    - *failed* ("refused", if by the server): a final error. Everything that waits fails with it, and so does what is
      called later.
    """

    def __init__(
        self,
        base: str,
        open_link: OpenLink,
        incoming: Incoming,
        outgoing: Outgoing,
        on_link: Callable[[Link], object],
        *,
        credential: str = "fixed",
        wait_max_s: float | None = None,
    ) -> None:
        """Make one; `run` connects it.

        Args:
            base: the server's address, for messages.
            open_link: see OpenLink.
            incoming: see above.
            outgoing: see above.
            on_link: called with each new state; what it raises is logged.
            credential: "none", "fixed" or "renewed", see Credential.
            wait_max_s: see Backoff.
        """
        self.failed: TwincastError | None = None
        """Why there will be no connection any more."""
        self.subscriptions = Subscriptions(incoming, self)
        """Starts and ends watches."""
        self._base = base
        self._open_link = open_link
        self._credential = credential
        self._incoming = incoming
        self._outgoing = outgoing
        self._on_link = on_link
        self._live = asyncio.Event()
        self._backoff = Backoff(wait_max_s)
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._live_at_s: float | None = None
        self._refusal: TwincastError | None = None
        self._heard_s = 0.0

    @property
    def is_live(self) -> bool:
        """See Line."""
        return self._outgoing.is_connected

    @property
    def is_asking(self) -> bool:
        """See Line."""
        return self._outgoing.is_asking

    async def live(self) -> None:
        """See Line."""
        await self._live.wait()
        if self.failed is not None:
            raise self.failed

    def ask(self, message: Message, on_answer: OnAnswer) -> None:
        """See Line."""
        self._outgoing.ask(message, on_answer)

    async def run(self, timeout_s: float | None) -> None:
        """Connect, and connect again, until cancelled or refused; `connect` runs this."""
        try:
            await self._stay_connected(timeout_s)
        except TwincastError as error:
            self.fail(error)
            if not error.retryable:
                self._report(Link("refused", error.message))
        except Exception as error:
            self.fail(TwincastError(f"the client failed: {type(error).__name__}"))
            raise

    async def _stay_connected(self, timeout_s: float | None) -> None:
        clock_s = asyncio.get_running_loop().time
        until_s = clock_s() + timeout_s if timeout_s is not None else float("inf")
        while True:
            self._live_at_s = held_s = None
            try:
                await self._connect_once()
            except Retryable as reason:
                if not self._ready.done() and clock_s() >= until_s:
                    raise reason.error from None
                if self._live_at_s is not None:
                    held_s = clock_s() - self._live_at_s
                pause_s = self._backoff.wait_s(held_s)
                if not self._ready.done():
                    pause_s = min(pause_s, max(0.0, until_s - clock_s()))
                self._report(Link("waiting", reason.error.message, pause_s))
                await asyncio.sleep(pause_s)

    async def _connect_once(self) -> None:
        needed = self.subscriptions.renew()
        query = query_of(needed, self._incoming.position)
        is_wide = is_too_long(query)
        if is_wide:
            query = query_of(Subscription(WIDE.rules, needed.mode, needed.max_hz), self._incoming.position)
        async with self._open_link(query) as socket:
            await self._talk(socket, needed if is_wide else None)

    async def wait_ready(self) -> None:
        """Wait for the first connection."""
        await asyncio.shield(self._ready)

    async def _talk(self, socket: Socket, narrower: Subscription | None) -> None:
        """Converse until the connection is lost. Raises Retryable, or what is final."""
        lost: BaseException | None = None
        self._refusal = None
        try:
            await self._greet(socket)
            if narrower is not None:
                self.subscriptions.narrow(narrower)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._outgoing.send_all(socket.send), name="client sends")
                group.create_task(self._ping(socket), name="client pings")
                await self._read(socket)
        except* (ConnectionClosed, TimeoutError, _OddAnswer, TwincastError) as errors:
            lost = errors.exceptions[0]
        finally:
            closed = lost.rcvd if isinstance(lost, ConnectionClosed) else None
            self._live.clear()
            self._outgoing.disconnected(closed.code if closed else None)
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError  # in Python 3.11 a TaskGroup that is ending already swallows it
        if isinstance(lost, _OddAnswer):
            raise Retryable(lost.error)
        if isinstance(lost, TwincastError):
            raise lost
        code, reason = (closed.code, closed.reason) if closed else (None, "")
        raise failure_of_close(code, reason, self._refusal, credential=self._credential)

    async def _greet(self, socket: Socket) -> None:
        hello: Message | None = None
        is_whole = False
        while not is_whole:
            async with asyncio.timeout(TIMEOUT_S):
                text = await socket.recv()
            message = self._decoded(text)
            kind = message.get("type")
            if kind == "error":  # the close code behind it says whether it is final
                self._refusal = error_of(str(message.get("code")), str(message.get("message")))
                continue
            if kind == "auth_required":
                raise failure_of_login(self._unknown(), credential=self._credential)
            if kind != ("hello" if hello is None else "snapshot"):
                raise self._odd()
            hello = hello or message
            is_whole = await self._take(message, len(text))
        self._begin(hello or {})

    def _begin(self, hello: Message) -> None:
        found = hello.get("limits", {})
        limits = Limits(found.get("message_max_bytes"), found.get("value_max_bytes"))
        self._live_at_s = asyncio.get_running_loop().time()
        is_ordered, server_utc = hello.get("ordered", False) is True, str(hello.get("timestamp_utc", ""))
        self._outgoing.connected(limits, is_ordered=is_ordered, server_utc=server_utc)
        self._live.set()
        self._report(Link("live"))
        _resolve(self._ready, None)

    async def _read(self, socket: Socket) -> None:
        clock_s = asyncio.get_running_loop().time
        while True:
            self._heard_s = clock_s()
            text = await socket.recv()
            self._heard_s = float("inf")  # while a watch is full, nothing is read, and silence means nothing
            message = self._decoded(text)
            if message.get("type") not in {"ack", "error"}:
                await self._take(message, len(text))
            elif not self._answered(message):
                raise _OddAnswer(
                    ServerUnreachable(
                        "the server refused a message without naming it; updates are sent one at a time now"
                    )
                )

    def _answered(self, message: Message) -> bool:
        try:
            return self._outgoing.answer(message)
        except (KeyError, TypeError) as error:
            raise self._odd(error) from None

    async def _take(self, message: Message, size_bytes: int) -> bool:
        try:
            return await self._incoming.take(message, size_bytes)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._odd(error) from None

    def _decoded(self, text: str | bytes) -> Message:
        try:
            return decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise self._odd() from None

    def _odd(self, error: Exception | None = None) -> _OddAnswer:
        if error is not None:
            logger.warning("a message from %s is not one of a twincast server", self._base, exc_info=error)
        return _OddAnswer(not_twincast(self._base).error)

    def _unknown(self) -> Unauthenticated:
        return Unauthenticated(f"{self._base} asks for a login; the credential that was sent did not reach it")

    async def _ping(self, socket: Socket) -> None:
        while True:
            await asyncio.sleep(PING_INTERVAL_S)
            if asyncio.get_running_loop().time() - self._heard_s > SILENCE_MAX_S:
                raise TimeoutError
            await socket.send(_PING)

    def _report(self, link: Link) -> None:
        try:
            self._on_link(link)
        except Exception:
            logger.exception("the callback for the state of the connection failed")

    def fail(self, error: TwincastError) -> None:
        """End everything that waits, and what is called later, with an error."""
        self.failed = error
        self._live.set()  # nothing may wait any longer
        _resolve(self._ready, error)
        self._outgoing.fail(error)
        self._incoming.fail(error)


def _resolve(future: asyncio.Future[None], error: TwincastError | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
        future.exception()
