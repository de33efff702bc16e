"""What the calls for the past share: who may ask, which position a text means, and what it costs."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from twincast.core.model import Position
from twincast.core.pattern import Pattern, PatternSet, pattern_set
from twincast.delivery.scheduler import Budget
from twincast.errors import Ahead, NoSuchDevice, UnknownEpoch
from twincast.history import History
from twincast.history.query import Names
from twincast.history.request import parse_bound
from twincast.history.times import stamp_us
from twincast.transports.operation import Call
from twincast.transports.parts import Parts

Found = TypeVar("Found")


class Asking:
    """One call that asks for the past."""

    def __init__(self, parts: Parts, call: Call) -> None:
        """Begin.

        Raises:
            NotPermitted: the caller may read nothing.
            RateLimited: the caller has read more than it may for now.
        """
        self.hub = parts.hub
        self.principal = call.caller.principal
        self.principal.require_at_all("read")
        self.budget = budget_of(call, parts)
        self.now_us = stamp_us(self.hub.now_utc())
        """What `now` means for this call."""
        self._past = parts.past
        self._call = call
        self._parts = parts

    async def of(self, question: Callable[[History], Awaitable[Found]]) -> Found:
        """Return what the history answers, and charge it. Raises what `Past.ask` raises."""
        return await self._past.ask(question, self.budget)

    def recheck(self) -> None:
        """Do nothing if the caller would be admitted now, as it was. Raises what `recheck` raises."""
        recheck(self._call, self._parts)

    @property
    def log(self) -> str:
        """The name of the log, whose epochs begin with it."""
        return self.hub.state.epoch.partition("-")[0]

    def names(self, wanted: PatternSet) -> Names:
        """Return the names that are wanted, as far as the caller may read them."""
        return Names(wanted, pattern_set(self.principal.readable))

    def check_position(self, position: Position) -> int:
        """Return the seq of a position that this log has come to. Nothing waits for one that it has not.

        Raises:
            UnknownEpoch: it is of another log, or of another past of this one.
            Ahead: the log has not come to it.
        """
        reason = self.hub.why_not_ours(position)
        if reason == "epoch":
            raise UnknownEpoch(
                f"{str(position)[:80]!r} is of another log, or of a past that this one, {self.hub.state.epoch}, does"
                " not share"
            )
        if reason:
            raise Ahead(f"the log is at {self.hub.state.seq}, and has not come to {position.seq}")
        return position.seq

    async def position_of(self, text: str, names: Names) -> int:
        """Return the seq of the log's last entry as of a time or a position.

        Args:
            text: the time or position.
            names: the devices whose state is wanted there.

        Raises:
            Ahead: it is in the future.
            Truncated: the log no longer reaches back to it; the error names the oldest position that it does.
            BadTime, UnknownEpoch: it is neither.
        """
        bound = parse_bound(text, self.now_us)
        if isinstance(bound, Position):
            return self.check_position(bound)
        if bound > self.now_us:
            raise Ahead(f"{text[:64]!r} is in the future; the log has what was stored until now")
        head_seq = self.hub.state.seq
        return min(await self.of(lambda history: history.position_at(bound, names)), head_seq)

    async def check_known(self, name: str) -> None:
        """Do nothing for a device that the state has, or of which the log holds an entry.

        Raises:
            NoSuchDevice: it is none.
        """
        if name in self.hub.state.twins:
            return
        names = self.names(exactly(name))
        if not await self.of(lambda history: history.names(names)):
            raise no_such_device(name)


def budget_of(call: Call, parts: Parts) -> Budget:
    """Return what a call that reads is charged to.

    Raises:
        RateLimited: the caller has read more than it may for now.
    """
    return parts.admission.limits.begin_reading(call.caller) if call.budget is None else call.budget


def recheck(call: Call, parts: Parts) -> None:
    """Do nothing if the caller would be admitted now. A program in this process always would.

    Raises:
        TwincastError: what Admission.recheck raises.
    """
    if call.budget is None:
        parts.admission.recheck(call.caller.principal)


def exactly(name: str) -> PatternSet:
    """Return the set of one name."""
    return PatternSet([Pattern(name.replace("\\", "\\\\").replace("*", "\\*"))])


def no_such_device(name: str) -> NoSuchDevice:
    """Return what is said of a device that there is not, or that the caller may not read."""
    return NoSuchDevice(f"there is no device {name[:128]!r}, and no history of one")
