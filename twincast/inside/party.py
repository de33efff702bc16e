"""A user in this process, with its rights: the client's verbs, types and checks, without a connection."""

import asyncio
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Unpack

from msgspec import UNSET, UnsetType

from twincast.access.request import Caller
from twincast.client.encoding import Time, checked, encode_args, encode_time, encode_value
from twincast.client.events import Twin
from twincast.client.history import History, Moment, Question, StateAt, asking, asking_state
from twincast.client.message import MEASURED, Message
from twincast.client.watch import Watch
from twincast.core.audit import Actor
from twincast.core.model import Deleted, Position, Scope, Source
from twincast.core.rights import Principal
from twincast.core.subscription import Mode, rules_of, subscription_to
from twincast.errors import TwincastError
from twincast.inside.feeding import Feeding
from twincast.inside.past import Past
from twincast.inside.running import Running
from twincast.inside.state import StateView
from twincast.wire.assembler import too_large
from twincast.wire.checks import check_value_sizes
from twincast.wire.client_messages import decode_message, draft
from twincast.wire.messages import encode

NAME: Source = "application"
"""The `source` of what the process itself publishes, and its name in the audit trail."""
ADDRESS = "local"


class Party:
    """A user in this process, made by `Twincast.user`; a `Twincast` itself is one with every right.

    Every call raises NotStarted before the twincast runs and after its end, and Stopping as it ends. On a log that is
    shared also NotReady, while that is opened anew.
    """

    def __init__(self, running: Running, principal: Principal, *, has_identity: bool) -> None:
        self._running = running
        self._principal = principal
        self._identity = principal.identity if has_identity else ""
        self._past = Past(running, Caller(principal, ADDRESS))
        self._state = StateView(lambda: running.app.parts.hub.state, principal)

    @property
    def state(self) -> Mapping[str, Twin]:
        """The newest state of every device that may be read; always current, with everything that was published."""
        _ = self._running.app.parts.hub  # raises, unless it runs
        return self._state

    @property
    def position(self) -> Position:
        """Up to where `state` has everything: what `watch(since=…)` goes on behind."""
        state = self._running.app.parts.hub.state
        return Position(state.epoch, state.seq)

    async def publish(self, device_id: str, value: Any, *, measured_at: Time | None = None) -> int:
        """Store a reading, and return its seq once it is on disk, in `state`, and on its way to all who watch.

        If cancelled, the reading is stored or not.

        Args:
            device_id: whose reading it is.
            value: what JSON has a form for, see docs/client.md.
            measured_at: when it was measured, with a zone. A reading from before the newest one of its device is kept
                as `late`, and does not become the device's state.

        Raises:
            BadMessage: the name, the value or the time cannot be; TooLarge and BadTime among these.
            NotPermitted: this party has no right to publish that.
            StateFull: there are as many devices, or as much state, as there may be.
            JournalUnavailable: the disk does not take it; it is not stored, and is not tried again by itself.
        """
        name, text = checked(device_id, "`device_id`"), encode_value(value)
        message: Message = {"type": "telemetry", "device_id": name, "value": text}
        if measured_at is not None:
            message[MEASURED] = encode_time(measured_at)
        return await self._store(message)

    async def command(
        self, target: str, command: str, args: Mapping[str, Any] | None = None, *, actor: str | None = None
    ) -> int:
        """Send a command to everyone who watches, and return its seq. Raises what `publish` raises.

        Args:
            target: a device, or any other name.
            command: what is to be done.
            args: its arguments.
            actor: the user on whose behalf, for the audit trail, which says `application:ACTOR`.
        """
        names = {"target": checked(target, "`target`"), "command": checked(command, "`command`")}
        return await self._store({"type": "control", **names, "args": encode_args(args)}, self._actor(actor))

    async def delete(self, device_id: str, *, history: bool = False, actor: str | None = None) -> int:
        """Delete a device, until a later reading creates it again, and return the seq of the deletion.

        Args:
            device_id: which.
            history: whether all that the log has of it goes as well, for good; it needs the right `admin`.
            actor: see `control`.

        Raises:
            NotFound: there is no such device.
            TwincastError: what `publish` raises.
        """
        message = {"type": "delete", "device_id": checked(device_id, "`device_id`")}
        return await self._store(message, self._actor(actor), "history" if history else UNSET)

    def watch(
        self,
        *devices: str,
        mode: Mode = "latest",
        kinds: str | Iterable[str] | None = None,
        max_hz: float | None = None,
        initial: bool = False,
        since: Position | str | None = None,
    ) -> Watch:
        """Return the events of devices, to be iterated over. It begins with its iteration, or with `async with`.

        Nothing is left out silently: an event after something that may be missing has a `gap`. A slow reader delays
        no other. The iteration ends with Stopping when the twincast does.

        Args:
            devices: patterns, such as `lab/*`; everything if there are none.
            mode: "latest": what waits for a slow reader merges, device by device. "every": nothing merges; what a slow
                reader has not taken is read back from the journal.
            kinds: "data_update", "control", "deleted", "late"; all but "late" if None.
            max_hz: in mode "latest", how often a second events come, at most.
            initial: whether to begin with the newest state of each device.
            since: the position of the last event that is done, `EPOCH:SEQ`; what came after it comes first.

        Raises:
            ValidationFailed: one of these is not what it should be.
            NotPermitted: this party may read nothing.
        """
        self._principal.require_at_all("read")
        rules = rules_of(devices or ("*",), kinds)
        subscription = subscription_to(rules, mode, max_hz).inside(self._principal.readable)
        position = Position.parse(since) if isinstance(since, str) else since
        return Watch(Feeding(self._running, position), subscription, initial=initial)

    async def history(self, device_id: str | None = None, **question: Unpack[Question]) -> History:
        """Return the past of a device, or of several, as far as this party may read it: entries, or buckets.

        Takes what Client.history takes, see docs/history.md: `devices=` with patterns instead of a name, `from_`, `to`,
        `path`, `every` or `points`, and more. A `watch` with the answer's `position` as `since` goes on behind it.

        Raises:
            TwincastError: what REST would refuse; NoSuchDevice, BadTime and BadRange are among these.
        """
        return await self._past.of(asking(device_id, question))

    async def state_at(self, at: Moment, *devices: str) -> StateAt:
        """Return the state as it was at a time or a position, of all devices or of those that patterns select.

        Raises:
            Ahead: that is in the future.
            Truncated: the log no longer reaches back to it.
            BadTime: it is no time; ValidationFailed: a datetime has no zone; UnknownEpoch: it is of another log.
        """
        return await self._past.of(asking_state(at, devices))

    def _actor(self, name: str | None) -> Actor:
        who = self._principal.id
        return Actor(who if name is None else f"{who}:{checked(name, '`actor`')}", ADDRESS)

    async def _store(
        self, message: dict[str, Any], actor: Actor | None = None, scope: Scope | UnsetType = UNSET
    ) -> int:
        """Store what a message asks for, as a session does with what comes over a wire.

        Args:
            message: it.
            actor: who is to stand in the audit trail.
            scope: of a deletion, which no message says.
        """
        hub = self._running.hub
        payload = encode(message)
        entry = draft(decode_message(payload), NAME)
        if isinstance(entry, Deleted):
            entry.scope = scope
        check_value_sizes((entry,), hub.sizes.value_max_bytes)
        if len(payload) > hub.sizes.message_max_bytes:
            raise too_large(hub.sizes.message_max_bytes)
        self._principal.require(entry.right, entry.subject)
        if not hub.intake.has_room:  # a coroutine less for each reading
            await hub.intake.room()
        stored: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        hub.submit(entry, len(payload), partial(_settle, stored), None, actor, identity=self._identity)
        return await stored


def _settle(stored: asyncio.Future[int], error: TwincastError | None, seq: int) -> None:
    if stored.done():  # its caller was cancelled
        return
    if error is None:
        stored.set_result(seq)
    else:
        stored.set_exception(error)
