"""What a connection brings, what it lacks for one more watch, and how that is asked for."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from twincast.client.link import Message, encode
from twincast.core.model import Kind
from twincast.core.subscription import Mode, Subscription

QUESTION_MAX_BYTES = 16 * 1024
"""How large one question may be, however many patterns are asked for: every server and every proxy takes that."""


@dataclass(frozen=True, slots=True)
class Missing:
    """What a connection is to be asked for in addition: patterns with all their kinds, and how it brings everything."""

    rules: dict[str, frozenset[Kind]]
    mode: Mode
    max_hz: float | None
    lifts_rate: bool
    """Whether the connection brings changes at a rate until now, and is to bring them as they come."""

    def questions(self) -> list[Message]:
        """Return the messages that ask for it, none larger than a server takes."""
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
        if self.lifts_rate:  # a rate ends with mode `every`, and by nothing else
            parts.append({"mode": "every"})
        return [{"type": "subscribe", **part} for part in (*parts, {**last, **how})]


@dataclass(slots=True)
class Brought:
    """What a connection was asked to bring until now. Questions are answered in order, so this is what counts next."""

    rules: dict[str, frozenset[Kind]] = field(default_factory=dict)
    mode: Mode = "latest"
    max_hz: float | None = None

    @classmethod
    def by(cls, subscription: Subscription) -> "Brought":
        """Return what an address asks for."""
        return cls(dict(subscription.rules), subscription.mode, subscription.max_hz)

    def lacks(self, subscription: Subscription) -> Missing | None:
        """Return what the connection must be asked for in addition, None if it brings all of a subscription already.

        A pattern that another one covers is asked for all the same: the other one may go first.
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
        """Note that it was asked for; return what takes that back if it is refused."""
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
        """Note that what is not needed is no longer asked for; return those patterns."""
        removed = sorted(self.rules.keys() - dict(needed.rules).keys())
        for text in removed:
            del self.rules[text]
        return removed


def split(patterns: Iterable[str]) -> Iterator[Sequence[str]]:
    """Cut patterns into lists that fit a question each."""
    part: list[str] = []
    size_bytes = 0
    for text in patterns:
        more_bytes = len(encode(text)) + 1
        if part and size_bytes + more_bytes > QUESTION_MAX_BYTES:
            yield part
            part, size_bytes = [], 0
        part.append(text)
        size_bytes += more_bytes
    if part:
        yield part
