"""One connection to NATS, with the habits that a log needs: it publishes only while it is connected, and says so.

nats-py keeps what is published while it is offline and sends it at any later time, and notices a dead peer after four
minutes. Here neither happens: what could not be sent now fails now, and a peer is dead after three seconds. Nor does a
message that it cannot read end the connection, which whoever may publish could otherwise do to this server.
"""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Self, TypeVar

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError

from twincast.errors import JournalUnavailable, JournalUnusable
from twincast.journal.jetstream.address import NatsAddress
from twincast.later import later

if TYPE_CHECKING:
    import nkeys  # type: ignore[import-untyped]
else:
    nkeys = later("nkeys")

T = TypeVar("T")
logger = logging.getLogger("twincast.nats")

CONNECT_S = 2.0
"""How long one NATS server may take to answer."""
PING_S, PINGS_MAX = 1, 3
"""How often it is asked whether it lives, and how many questions may be open: fewer end healthy connections, for
answers queue behind data."""
RECONNECT_S = 0.1
ASK_S = 2.0
"""How long an answer of JetStream may take."""
CANCEL_AGAIN_S = 0.05
PENDING_MAX_BYTES = 16 << 20

Message = Msg
"""`subject`, `reply`, `data`, `headers`."""
Take = Callable[[Message], Awaitable[None]]


class ApiError(JournalUnavailable):
    """What JetStream refused, with its own number for the reason."""

    def __init__(self, what: str, error: dict[str, Any]) -> None:
        self.number = int(error.get("err_code", 0))
        """JetStream's `err_code`."""
        self.description = str(error.get("description", "no reason"))
        super().__init__(f"NATS refuses {what}: {self.description} ({self.number})")


class _ClosedOverTls(logging.Filter):
    """Leaves out what asyncio warns of at the end of each connection that nats-py has begun without TLS.

    The end of the stream is taken as it should; only asyncio's protocol was not told that there is TLS below it.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        return record.msg != "returning true from eof_received() has no effect when using ssl"


logging.getLogger("asyncio").addFilter(_ClosedOverTls())


class _Client(Client):
    """Where nats-py would read nothing more, and notice that after seconds, this one goes on.

    Its reader ends with any error, and the next one begins when three pings had no answer.
    """

    unreadable = 0

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        try:
            await super()._process_msg(sid, subject, reply, data, headers)
        except (UnicodeDecodeError, IndexError) as error:  # of the subject or a header, neither of which NATS checks
            self.unreadable += 1
            level = (
                logging.DEBUG if self.unreadable & (self.unreadable - 1) else logging.WARNING
            )  # the 1st, 2nd, 4th, …
            text = "NATS brought message number %d that cannot be read, on %r: %s"
            logger.log(level, text, self.unreadable, bytes(subject[:128]), error)

    async def _process_pong(self) -> None:
        if self._pongs and self._pongs[0].done():  # whoever asked has given up
            self._pongs.pop(0)
            self._pings_outstanding = 0
            return
        await super()._process_pong()


class Link:
    """A connection, which comes back by itself. Lives on one event loop."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._refused = ""
        self.on_connection: list[Callable[[bool], None]] = []
        """Each is called with whether there is a connection, when that changes."""

    @classmethod
    async def connect(cls, address: NatsAddress, *, purpose: str = "twincast") -> Self:
        """Connect to one of the servers.

        Args:
            address: where.
            purpose: what NATS's own monitoring shows.

        Raises:
            JournalUnavailable: none of them answers, at the moment.
            JournalUnusable: they answer, and refuse this credential; or a file that the URL names is none.
        """
        client = _Client()
        link = cls(client)
        told: list[Exception] = []

        async def note(error: Exception) -> None:
            told.append(error)
            del told[:-8]
            if "permissions violation" in str(error).lower():
                link._refused = str(error)
            logger.info("NATS: %s", error)

        async def came() -> None:
            link._tell(is_connected=True)

        async def went() -> None:
            link._tell(is_connected=False)

        try:
            await _cancellable(
                client.connect(
                    list(address.servers),
                    name=purpose,
                    error_cb=note,
                    reconnected_cb=came,
                    disconnected_cb=went,
                    connect_timeout=CONNECT_S,  # type: ignore[arg-type]  # it takes any number
                    reconnect_time_wait=RECONNECT_S,  # type: ignore[arg-type]
                    max_reconnect_attempts=-1,
                    ping_interval=PING_S,
                    max_outstanding_pings=PINGS_MAX,
                    pending_size=PENDING_MAX_BYTES,
                    token=address.token,
                    user_credentials=address.creds,
                    nkeys_seed=address.nkey,
                    tls=_tls(address),
                ),
                CONNECT_S * len(address.servers) + 1,
            )
        except asyncio.CancelledError:
            await client.close()
            raise
        except (OSError, NatsError, TimeoutError, ValueError, nkeys.NkeysError) as error:
            with contextlib.suppress(AssertionError):  # nats-py has not begun, if a file is wrong
                await client.close()
            raise _why_not(address, [*told, error]) from None
        return link

    @property
    def is_connected(self) -> bool:
        """Whether what is sent now goes out now."""
        return bool(self._client.is_connected)

    @property
    def max_payload_bytes(self) -> int:
        """How large a message may be, as the server says."""
        return int(self._client.max_payload)

    @property
    def version(self) -> tuple[int, ...]:
        """Of the NATS server."""
        version = self._client.connected_server_version
        return version.major, version.minor, version.patch

    @property
    def is_clustered(self) -> bool:
        """Whether the NATS server is one of several."""
        return bool(self._client._server_info.get("cluster"))

    async def publish(
        self, subject: str, payload: bytes, *, headers: dict[str, str] | None = None, reply: str = ""
    ) -> None:
        """Send a message now.

        Raises:
            JournalUnavailable: there is no connection.
        """
        if not self._client.is_connected:
            raise JournalUnavailable("NATS cannot be reached")
        try:
            await self._client.publish(subject, payload, reply=reply, headers=headers)
        except NatsError as error:
            raise JournalUnavailable(f"NATS takes no message: {error}") from error

    def send(self, lines: bytes) -> None:
        """Send messages now, in one write: `PUB` lines with their payloads, as NATS's protocol has them.

        Nothing waits here: whoever sends much asks `confirm` before more.

        Raises:
            JournalUnavailable: there is no connection.
        """
        transport = self._client._transport
        if transport is None or not self._client.is_connected:
            raise JournalUnavailable("NATS cannot be reached")
        transport.write(lines)

    async def confirm(self, timeout_s: float = ASK_S) -> None:
        """Return when the server has everything that was sent by `send`.

        Unlike nats-py's `flush`, whose ping overtakes what waits in its buffer, and which ends the reader when the
        answer comes after its timeout.

        Raises:
            JournalUnavailable: there is no connection, or it was lost meanwhile.
        """
        answer = asyncio.get_running_loop().create_future()
        self.send(b"PING\r\n")
        self._client._pongs.append(answer)
        if not (await asyncio.wait({answer}, timeout=timeout_s))[0]:
            answer.cancel()
            raise JournalUnavailable("NATS does not say that it has what was sent")

    async def subscribe(self, subject: str, take: Take, *, queue: str = "") -> Subscription:
        """Have messages taken, one after the other. `unsubscribe` of what is returned ends it.

        Raises:
            JournalUnavailable: the connection is closed.
        """
        try:
            return await self._client.subscribe(
                subject, queue=queue, cb=take, pending_msgs_limit=-1, pending_bytes_limit=-1
            )
        except NatsError as error:
            raise JournalUnavailable(f"NATS gives nothing on {subject}: {error}") from error

    async def unsubscribe(self, subscription: Subscription) -> None:
        """End what `subscribe` began; nothing if the connection has ended it."""
        with contextlib.suppress(NatsError):
            await subscription.unsubscribe()

    async def request(self, subject: str, payload: bytes, timeout_s: float = ASK_S) -> bytes:
        """Return the answer to a question.

        Raises:
            JournalUnavailable: nobody answers in time.
        """
        if not self._client.is_connected:
            raise JournalUnavailable("NATS cannot be reached")
        try:
            return (await _cancellable(self._client.request(subject, payload, timeout=timeout_s), timeout_s + 1)).data
        except NoRespondersError as error:
            if subject.startswith("$JS.API."):
                raise JournalUnavailable(
                    "NATS is there, and its JetStream is not: `-js` or a `jetstream` block starts it; of several NATS"
                    " servers more than half must run"
                ) from error
            raise JournalUnavailable(f"nobody answers on {subject}") from error
        except (NatsError, TimeoutError) as error:
            raise self._no_answer(subject, error) from error

    async def ask(self, what: str, body: object = None, timeout_s: float = ASK_S) -> dict[str, Any]:
        """Return the answer of JetStream's API, such as to `STREAM.INFO.NAME`.

        Raises:
            ApiError: it refuses.
            JournalUnavailable: it does not answer, or is not on.
        """
        data = await self.request(f"$JS.API.{what}", b"" if body is None else msgspec.json.encode(body), timeout_s)
        answer: dict[str, Any] = msgspec.json.decode(data)
        if "error" in answer:
            raise ApiError(what, answer["error"])
        return answer

    async def store(self, subject: str, payload: bytes, *, headers: dict[str, str] | None = None) -> int:
        """Have a message stored in a stream; return its place there.

        Raises:
            ApiError: it is not stored, for a reason.
            JournalUnavailable: whether it is stored is not known.
        """
        if not self._client.is_connected:
            raise JournalUnavailable("NATS cannot be reached")
        try:
            asking = self._client.request(subject, payload, timeout=ASK_S, headers=headers)
            message = await _cancellable(asking, ASK_S + 1)
        except (NatsError, TimeoutError) as error:
            raise self._no_answer(subject, error) from error
        answer: dict[str, Any] = msgspec.json.decode(message.data)
        if "error" in answer:
            raise ApiError("the message", answer["error"])
        return int(answer["seq"])

    def _no_answer(self, subject: str, error: Exception) -> JournalUnavailable:
        """Return what to say. Of a right that its user lacks, NATS tells on its own, and gives no answer."""
        why = self._refused if f'"{subject.lower()}"' in self._refused.lower() else str(error)
        return JournalUnavailable(f"no answer on {subject}: {why or 'none came in time'}")

    def new_inbox(self) -> str:
        """Return a subject of its own for answers."""
        return str(self._client.new_inbox())

    async def close(self) -> None:
        """Send what waits, and close the connection."""
        try:
            await self._client.close()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise  # else it was a task of nats-py's, which waited for the same and was ended

    def _tell(self, *, is_connected: bool) -> None:
        for tell in self.on_connection:
            tell(is_connected)


async def _cancellable(work: Coroutine[Any, Any, T], at_most_s: float) -> T:
    """Return what comes of work of nats-py in time, unless this task is cancelled.

    nats-py loses cancellations: while it closes a connection, as it does again and again where its user is refused, it
    takes them for its own; and up to Python 3.11 `asyncio.wait_for`, which it uses, returns an answer that comes in the
    same moment (https://github.com/python/cpython/issues/86296). So it is a task, which is cancelled until it ends.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=at_most_s)
        if not task.done():
            raise TimeoutError
        return task.result()
    finally:
        while not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=CANCEL_AGAIN_S)
        if not task.cancelled():
            task.exception()  # what nobody waits for is no news


def _tls(address: NatsAddress) -> ssl.SSLContext | None:
    if not address.is_tls:
        return None
    try:
        context = ssl.create_default_context(cafile=address.ca)
        if address.cert is not None:
            context.load_cert_chain(address.cert, address.key)
    except (OSError, ssl.SSLError) as error:
        raise JournalUnusable(f"the certificates for NATS cannot be used: {error.strerror or error}") from None
    return context


def _why_not(address: NatsAddress, told: list[Exception]) -> JournalUnavailable | JournalUnusable:
    if isinstance(told[-1], nkeys.NkeysError):
        return JournalUnusable(f"{address.nkey or address.creds} has no seed of an nkey: {told[-1]}")
    texts = " ".join(str(error).lower() for error in told)
    where = ", ".join(address.servers)
    if "authorization" in texts or "authentication" in texts or "nkey" in texts or "credential" in texts:
        file = address.nkey or address.creds
        mend = "give `?creds=FILE`, `?nkey=FILE` or the variable TWINCAST_NATS_TOKEN"
        if file is not None:
            mend = f"the user in {file} must be one that its configuration has"
        return JournalUnusable(f"NATS at {where} refuses this server: {mend}")
    if isinstance(told[-1], FileNotFoundError | IsADirectoryError | PermissionError) and told[-1].filename:
        return JournalUnusable(f"{told[-1].filename}, which the URL of the log names, cannot be read")
    of_tls = [text for text in map(str, told) if any(word in text.lower() for word in ("tls", "ssl", "certificate"))]
    if of_tls:
        return JournalUnusable(f"NATS at {where} and this server do not agree on TLS: {of_tls[-1]}")
    return JournalUnavailable(f"NATS cannot be reached at {where}: {str(told[-1]) or 'no answer in time'}")
