"""The client: readings and commands out, events and the state in, over one connection that keeps itself alive."""

import asyncio
import ssl
from collections.abc import Callable, Generator, Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from twincast.client.address import http_url
from twincast.client.connection import Connection
from twincast.client.credential import Credential, Token
from twincast.client.encoding import Reading, Time, checked, encode_args, encode_time, encode_value, parts_of
from twincast.client.events import Twin
from twincast.client.incoming import Incoming
from twincast.client.link import CLOSE_TIMEOUT_S, Link, open_link
from twincast.client.listener import CommandListener, OnCommand
from twincast.client.message import MEASURED, Message
from twincast.client.outgoing import Backlog, Outgoing, refused
from twincast.client.pin import trust_of
from twincast.client.progress import Progress
from twincast.client.readback import ReadBack
from twincast.client.resumption import Resumption
from twincast.client.watch import Watch
from twincast.core.model import Position
from twincast.core.subscription import Mode, Subscription, rules_of
from twincast.errors import BadMessage, ServerUnreachable
from twincast.later import later

if TYPE_CHECKING:  # most programs never ask for the past, and httpx takes a while to import
    from twincast.client import history as histories
    from twincast.client import rest
    from twincast.client.history import History, Moment, Question, StateAt
else:
    histories, rest = later("twincast.client.history"), later("twincast.client.rest")

C = TypeVar("C", bound=OnCommand)
Found = TypeVar("Found")


class Client:
    """A client of one server. Made by `connect`."""

    def __init__(
        self,
        url: str,
        devices: str | Iterable[str],
        *,
        buffer_max_bytes: int,
        on_link: Callable[[Link], None] | None,
        token: Token = None,
        tls: ssl.SSLContext | None = None,
        fingerprint: str | None = None,
        close_timeout_s: float = CLOSE_TIMEOUT_S,
        wait_max_s: float | None = None,
        since: Position | None = None,
        outgoing: Outgoing | None = None,
    ) -> None:
        self.progress = Progress()
        following = Subscription(rules_of(devices, ["data_update", "deleted"]))
        self._incoming = Incoming(following, self.progress.changed.set)
        self._since = since
        self._outgoing = outgoing or Outgoing(buffer_max_bytes)
        self._state = MappingProxyType(self._incoming.followed)
        self._listeners: list[CommandListener] = []
        base, credential = http_url(url), Credential(token)
        trust = trust_of(base, tls, fingerprint)
        self._base, self._credential, self._trust = base, credential, trust
        open_one = partial(open_link, base, credential=credential, trust=trust, close_timeout_s=close_timeout_s)
        self.connection = Connection(
            base,
            open_one,
            self._incoming,
            self._outgoing,
            on_link or (lambda _: None),
            credential=credential.kind,
            wait_max_s=wait_max_s,
        )
        make = partial(ReadBack, base=base, open_link=open_one, credential=credential.kind)
        self.resumption = Resumption(self.connection.subscriptions, self._incoming, self.progress, make, since)

    @property
    def state(self) -> Mapping[str, Twin]:
        """The newest state of every device that is followed, kept up to date."""
        return self._state

    @property
    def position(self) -> Position | None:
        """Up to where `state` and the watches have everything."""
        return self._incoming.position

    @property
    def cursor(self) -> Position | None:
        """Up to where this program has finished with its events: `connect(since=…)` resumes behind it.

        It passes an event when the loop asks for the next one, or the callback returns; the slowest watch decides.
        Before the first watch it is the position that `connect` was given, or None.
        """
        mark = self.progress.mark
        return self._since if mark is None else mark.position

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection at the moment."""
        return self._outgoing.is_connected

    @property
    def backlog(self) -> Backlog | None:
        """What waits in the spool for the server; None without a spool."""
        return self._outgoing.backlog

    async def publish(self, device_id: str, value: Any, *, measured_at: Time | None = None) -> int:
        """Send a reading and return its seq once the server has it on disk.

        While there is no connection, it waits for one. A reading that the server cannot store at the moment is sent
        again. With a spool it returns 0 once the reading is on this disk, for it has no seq yet.

        Args:
            device_id: whose reading it is.
            value: what JSON has a form for, see docs/client.md.
            measured_at: when it was measured, with a zone. A reading from before the newest one of its device is kept
                as `late`, and does not become the device's state.

        Raises:
            TooLarge: the value, or the message, is beyond this server's limits.
            BadTime: `measured_at` is not a time with a zone.
            BadMessage: the value has no form in JSON, or the server refused it, in its own words.
            BufferFull: there is no connection, and `buffer_max_bytes` wait for one; SpoolFull: the spool is full.
            ServerUnreachable: the client was closed first; the reading may or may not be stored.
            SpoolUnusable: the spool's disk fails.
        """
        return await (await self._begin(device_id, value, measured_at))

    async def submit(self, device_id: str, value: Any, *, measured_at: Time | None = None) -> asyncio.Future[int]:
        """Take a reading and return at once; the future becomes its seq, or the error that `publish` raises.

        Waits only while a connection has as many updates in flight as it may; with a spool, until it is on this disk.

        Raises:
            BufferFull: see `publish`.
            ServerUnreachable: the client was closed.
        """
        try:
            message, size_bytes = _telemetry(device_id, value, measured_at)
        except BadMessage as error:
            return refused(error)
        return await self._outgoing.put(message, size_bytes)

    async def publish_many(self, readings: Iterable[Reading]) -> list[int]:
        """Send readings, each stored by itself, and return their seqs.

        A reading is a device, a value, and perhaps the time at which it was measured; see `publish`.
        If some are refused, the others are stored all the same; then the error of the first refused one is raised.
        """
        futures = [await self._begin(*parts_of(reading)) for reading in readings]
        answers = await asyncio.gather(*futures, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return [answer for answer in answers if isinstance(answer, int)]

    async def control(self, target: str, command: str, args: Mapping[str, Any] | None = None) -> int:
        """Send a command to everyone who watches; return its seq. Raises what `publish` raises."""
        names = {"target": checked(target, "`target`"), "command": checked(command, "`command`")}
        return await (await self._outgoing.begin({"type": "control", **names, "args": encode_args(args)}))

    async def delete(self, device_id: str, *, history: bool = False) -> int:
        """Delete a device, until a later reading makes it anew; return the seq. Its readings stay in the log.

        Args:
            device_id: which.
            history: whether all that the log has of it goes as well, for good; see Rest.delete. It is asked by a
                request of its own, once everything that was submitted is answered.

        Raises:
            NotFound: there is no such device.
            TwincastError: see `publish`.
        """
        if history:
            path = rest.deletion_path(device_id, history=True)
            await self.settle()
            token = await self._credential.get()
            answer = await rest.delete(self._base, path, token=token, trust=self._trust)
            return int(answer["event"]["seq"])
        message = {"type": "delete", "device_id": checked(device_id, "`device_id`")}
        return await (await self._outgoing.begin(message, is_barrier=True))

    async def history(self, device_id: str | None = None, **question: "Unpack[Question]") -> "History":
        """Return the past of a device, or of several; see Rest.history, which takes and raises the same.

        It is asked by requests of its own, and not over the connection. `watch` behind its `position` goes on.
        """
        return await self._get(histories.asking(device_id, question))

    async def state_at(self, at: "Moment", *devices: str) -> "StateAt":
        """Return the state of all devices as it was, or of those that patterns select; see Rest.state_at."""
        return await self._get(histories.asking_state(at, devices))

    async def _get(self, paths: Generator[str, Message, Found]) -> Found:
        token = await self._credential.get()
        return await rest.get(self._base, paths, token=token, trust=self._trust)

    async def settle(self) -> None:
        """Wait until everything that was submitted is answered; with a spool, every line in it."""
        await self._outgoing.settle()

    async def reached(self, seq: int) -> None:
        """Wait until `state` and the watches have everything up to a seq, such as `publish` returned."""
        await self._incoming.reached(seq)

    def watch(
        self,
        *devices: str,
        mode: Mode = "latest",
        kinds: str | Iterable[str] | None = None,
        max_hz: float | None = None,
        initial: bool = False,
    ) -> Watch:
        """Return the events of devices, to be iterated over.

        Args:
            devices: patterns, such as `lab/*`; everything if there are none.
            mode: "latest": events that wait for a slow loop are merged, device by device. "every": nothing is merged;
                a loop that is too slow holds up the connection, and with it the other watches.
            kinds: "data_update", "control", "deleted", "late"; all but "late" if None.
            max_hz: in mode "latest", how often a second the loop gets events, at most.
            initial: whether to begin with the newest state of each device.

        Raises:
            ValidationFailed: an argument is not one of these.
        """
        subscription = Subscription(rules_of(devices or ("*",), kinds), mode, max_hz)
        return Watch(self.resumption, subscription, initial=initial)

    @overload
    def on_command(self, target: str) -> Callable[[C], C]: ...

    @overload
    def on_command(self, target: str, call: OnCommand) -> CommandListener: ...

    def on_command(self, target: str, call: Any = None) -> Any:
        """Call a function for each command to a target (a pattern), in order. Without `call` it is a decorator.

        `await client.on_command(target, call)` returns once it is live: no command that is sent then is missed. A
        decorated function becomes live a moment later; `await client.listening()` waits for that.

        What the function raises is logged, and the next command calls it again.
        """
        if call is None:
            return partial(self._decorated, target)
        self._listeners = [earlier for earlier in self._listeners if not earlier.is_over]
        listener = CommandListener(self.watch(target, mode="every", kinds=["control"]), target, call)
        self._listeners.append(listener)
        return listener

    async def listening(self) -> None:
        """Wait until every callback that was given to `on_command` is live.

        Raises:
            TwincastError: the server refused one, or there will be no connection any more.
        """
        for listener in tuple(self._listeners):
            await listener

    async def stop_listening(self) -> None:
        """End all callbacks for commands; `connect` calls it."""
        await asyncio.gather(*(listener.end() for listener in self._listeners))

    async def close(self) -> None:
        """End what was started for this client; `connect` calls it."""
        await self.resumption.close()
        self.connection.fail(ServerUnreachable("the connection was closed"))
        await self._outgoing.close()

    def _decorated(self, target: str, call: C) -> C:
        self.on_command(target, call)
        return call

    async def _begin(self, device_id: str, value: Any, measured_at: Time | None) -> asyncio.Future[int]:
        try:
            message, size_bytes = _telemetry(device_id, value, measured_at)
        except BadMessage as error:
            return refused(error)
        return await self._outgoing.begin(message, size_bytes)


def _telemetry(device_id: str, value: Any, measured_at: Time | None) -> tuple[Message, int]:
    """Return the message for a reading, and the size of its value."""
    text = encode_value(value)
    message: Message = {"type": "telemetry", "device_id": checked(device_id, "`device_id`"), "value": text}
    if measured_at is not None:
        message[MEASURED] = encode_time(measured_at)
    return message, memoryview(text).nbytes
