"""What a connection is subscribed to, what it lacks for one more watch, and the messages that ask for that."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from twincast.client.message import Message, encode
from twincast.core.model import Kind
from twincast.core.subscription import Mode, Subscription

REQUEST_MAX_BYTES = 16 * 1024
"""The largest `subscribe` that is sent, however many patterns there are: every server and every proxy accepts it."""


@dataclass(frozen=True, slots=True)
class Missing:
    """What a connection must subscribe to in addition: patterns with all their kinds; and the mode and rate of all."""

    rules: dict[str, frozenset[Kind]]
    mode: Mode
    max_hz: float | None
    lifts_rate: bool
    """Whether the connection has a rate now, and is to have none."""

    def requests(self) -> list[Message]:
        """Return the messages that ask for it, each small enough for every server."""
        by_kinds: dict[frozenset[Kind], list[str]] = defaultdict(list)
        for text, kinds in sorted(self.rules.items()):
            by_kinds[kinds].append(text)
        parts: list[dict[str, Any]] = [
            {"devices": texts, "kinds": sorted(kinds)} for kinds, all_ in by_kinds.items() for texts in split(all_)
        ]
        how: dict[str, Any] = {"mode": self.mode}
        if self.max_hz is not None:
            how["max_hz"] = self.max_hz
        last = parts.pop() if parts else {}
        if self.lifts_rate:  # mode `every` ends a rate, and nothing else does
            parts.append({"mode": "every"})
        return [{"type": "subscribe", **part} for part in (*parts, {**last, **how})]


@dataclass(slots=True)
class Coverage:
    """What a connection has asked for so far. The server answers in order, so this is what the next request adds to."""

    rules: dict[str, frozenset[Kind]] = field(default_factory=dict)
    mode: Mode = "latest"
    max_hz: float | None = None

    @classmethod
    def of(cls, subscription: Subscription) -> "Coverage":
        """Return what an address asks for."""
        return cls(dict(subscription.rules), subscription.mode, subscription.max_hz)

    def missing_for(self, subscription: Subscription) -> Missing | None:
        """Return what the connection must ask for in addition; None if it covers the whole subscription already.

        A pattern that is covered by another one is asked for too: the other one may be removed first.
        """
        missing = {text: self.rules.get(text, frozenset()) | kinds for text, kinds in subscription.rules}
        missing = {text: kinds for text, kinds in missing.items() if self.rules.get(text) != kinds}
        mode: Mode = "every" if "every" in {self.mode, subscription.mode} else "latest"
        max_hz = None
        if mode == "latest" and self.rules and self.max_hz is not None and subscription.max_hz is not None:
            max_hz = max(self.max_hz, subscription.max_hz)
        elif mode == "latest" and not self.rules:
            max_hz = subscription.max_hz
        if not missing and (mode, max_hz) == (self.mode, self.max_hz):
            return None
        lifts_rate = mode == "latest" and self.max_hz is not None and max_hz is None
        return Missing(missing, mode, max_hz, lifts_rate)

    def add(self, missing: Missing) -> Callable[[], None]:
        """Note that it was asked for; return what undoes that if the server refuses it."""
        before = {text: self.rules.get(text) for text in missing.rules}
        mode, max_hz = self.mode, self.max_hz
        self.rules |= missing.rules
        self.mode, self.max_hz = missing.mode, missing.max_hz

        def undo() -> None:
            for text, kinds in before.items():
                if kinds is None:
                    self.rules.pop(text, None)
                else:
                    self.rules[text] = kinds
            self.mode, self.max_hz = mode, max_hz

        return undo

    def remove_all_but(self, needed: Subscription) -> list[str]:
        """Remove the patterns that are not needed, and return them."""
        removed = sorted(self.rules.keys() - dict(needed.rules).keys())
        for text in removed:
            del self.rules[text]
        return removed


def split(patterns: Iterable[str]) -> Iterator[Sequence[str]]:
    """Cut patterns into lists that fit one request each."""
    part: list[str] = []
    size_bytes = 0
    for text in patterns:
        more_bytes = len(encode(text)) + 1
        if part and size_bytes + more_bytes > REQUEST_MAX_BYTES:
            yield part
            part, size_bytes = [], 0
        part.append(text)
        size_bytes += more_bytes
    if part:
        yield part
