"""What clients were told: every acknowledgement, how long each waited, and what should not have been."""

import time
from dataclasses import dataclass, field
from typing import NamedTuple


class Ack(NamedTuple):
    """A server's word that an update is stored."""

    by: str
    """The publisher."""
    n: int
    """The publisher's number of the update."""
    epoch: str
    first: int
    last: int
    """The positions of its entries."""
    is_replayed: bool
    is_at_least: bool = False
    """Whether the word is only that it stands there or before: a numbered line that was stored before."""


@dataclass
class Fault:
    """One that was done to the machines, and what clients felt of it."""

    kind: str
    at_s: float
    is_alone: bool
    """Whether all was well before, and nothing else came before the next one."""
    silence_s: float = 0.0
    """The longest that a publisher waited for the answer to one update, from the fault on, over all its attempts."""
    back_s: float | None = None
    """When the last watcher of a server that was hit had everything, on another one."""
    missing: dict[str, int] = field(default_factory=dict)
    """By watcher that is not back yet, the position that it must have."""

    def back(self, watcher: str, seq: int) -> None:
        """Note how far a watcher is."""
        if watcher in self.missing and seq >= self.missing[watcher]:
            del self.missing[watcher]
            self.back_s = time.monotonic() - self.at_s


@dataclass
class Ledger:
    """All of it."""

    sent: dict[str, int] = field(default_factory=dict)
    """How many updates each publisher has begun."""
    keyless: set[str] = field(default_factory=set)
    """Publishers without keys, who send each update once."""
    acks: list[Ack] = field(default_factory=list)
    entries: int = 0
    """How many were acknowledged, each once."""
    attempts: int = 0
    newest: int = 0
    """The highest position that was acknowledged, of the newest epoch."""
    epoch: str = ""
    faults: list[Fault] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def answered(self, acks: list[Ack], began_s: float) -> None:
        """Take what was said of one update, by one server or by several."""
        self.acks += acks
        self.entries += acks[0].last - acks[0].first + 1
        for ack in acks:
            if ack.epoch != self.epoch:
                self.epoch, self.newest = ack.epoch, 0
            self.newest = max(self.newest, ack.last)
        if self.faults:
            fault = self.faults[-1]
            fault.silence_s = max(fault.silence_s, time.monotonic() - max(began_s, fault.at_s))

    @property
    def replays(self) -> int:
        """How many acknowledgements said that it was stored before."""
        return sum(ack.is_replayed for ack in self.acks)
