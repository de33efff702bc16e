"""What one connection wants to be told of, and how."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, cast

from twincast.core.model import Kind, Topic
from twincast.core.pattern import Names, Pattern
from twincast.errors import ValidationFailed

Mode = Literal["latest", "every"]
Rule = tuple[str, frozenset[Kind]]

KINDS: frozenset[Kind] = frozenset({"data_update", "control"})
EVERYWHERE = frozenset({"*"})
PATTERNS_MAX, STARS_MAX = 1_000, 100
"""Exact names are found in one lookup; patterns with a star are held against every name, and so cost more."""
MAX_HZ_MIN, MAX_HZ_MAX = 0.01, 1_000.0


@dataclass(frozen=True)
class Subscription:
    """Patterns with the kinds that each selects, the mode, and within what. Equal subscriptions share what is sent.

    Args:
        rules: patterns, each once, with its kinds.
        mode: "latest" merges per device when the client does not keep up; "every" never does.
        max_hz: how often a second changes are sent, at most; None for as they come. Only with "latest".
        within: the patterns that the client has the right to read. What they do not select does not exist for it.
    """

    rules: frozenset[Rule] = frozenset({("*", KINDS)})
    mode: Mode = "latest"
    max_hz: float | None = None
    within: frozenset[str] = EVERYWHERE
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the whole.

        Raises:
            ValidationFailed: too many patterns, or a mode and a frequency that do not go together.
        """
        if len(self.rules) > PATTERNS_MAX:
            raise ValidationFailed(f"a subscription takes {PATTERNS_MAX} patterns; this one has {len(self.rules)}")
        stars = sum(pattern.exact is None for pattern, _ in self._read)
        if stars > STARS_MAX:
            raise ValidationFailed(f"{STARS_MAX} patterns may have a star; of these {stars} have")
        if self.mode not in {"latest", "every"}:
            raise ValidationFailed(f"`mode` is latest or every, not {str(self.mode)[:40]!r}")
        if self.max_hz is not None:
            if self.mode == "every":
                raise ValidationFailed("`max_hz` goes with mode latest; every change cannot be held back")
            if not MAX_HZ_MIN <= self.max_hz <= MAX_HZ_MAX:
                raise ValidationFailed(f"`max_hz` takes {MAX_HZ_MIN} to {MAX_HZ_MAX:g}, not {self.max_hz}")
        object.__setattr__(self, "_hash", hash((self.rules, self.mode, self.max_hz, self.within)))

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def is_everything(self) -> bool:
        """Whether every change is selected."""
        return ("*", KINDS) in self.rules and self._readable.is_all

    @cached_property
    def exact(self) -> frozenset[Topic]:
        """The topics that are selected by their whole name."""
        readable = self._readable
        named = {(kind, p.exact) for p, kinds in self._read if p.exact is not None for kind in kinds}
        if readable.is_listed:
            stars = [(p, kinds) for p, kinds in self._read if p.exact is None]
            named |= {
                (kind, name) for p, kinds in stars for name in readable.exact if p.matches(name) for kind in kinds
            }
        return frozenset((kind, name) for kind, name in named if readable.has(name))

    @cached_property
    def patterns(self) -> Sequence[tuple[Pattern, frozenset[Kind]]]:
        """What selects names that are not known yet."""
        if self._readable.is_listed:
            return ()
        return [(pattern, kinds) for pattern, kinds in self._read if pattern.exact is None]

    @cached_property
    def _read(self) -> Sequence[tuple[Pattern, frozenset[Kind]]]:
        return [(Pattern(text), kinds) for text, kinds in self.rules]

    @cached_property
    def _readable(self) -> Names:
        return Names(self.within)

    def selects(self, topic: Topic) -> bool:
        """Whether changes of a topic are wanted, and may be had."""
        if self.is_everything or topic in self.exact:
            return True
        kind, name = topic
        return self._readable.has(name) and any(
            kind in kinds and pattern.matches(name) for pattern, kinds in self.patterns
        )

    def adding(self, rules: Iterable[Rule]) -> "Subscription":
        """Return this subscription with more patterns; one that it has already takes the new kinds."""
        merged = dict(self.rules) | dict(rules)
        return replace(self, rules=frozenset(merged.items()))

    def removing(self, patterns: Sequence[str] | None) -> "Subscription":
        """Return this subscription without some patterns, or without any (None)."""
        rules = () if patterns is None else ((text, kinds) for text, kinds in self.rules if text not in patterns)
        return replace(self, rules=frozenset(rules))

    def inside(self, readable: frozenset[str]) -> "Subscription":
        """Return this subscription for a client that may read what some patterns select, and nothing else."""
        return self if readable == self.within else replace(self, within=EVERYWHERE if "*" in readable else readable)

    def described(self) -> dict[str, Any]:
        """Return it as the wire shows it."""
        devices = {text: sorted(kinds) for text, kinds in sorted(self.rules)}
        return {"devices": devices, "mode": self.mode, "max_hz": self.max_hz}


def rules_of(patterns: Iterable[str], kinds: Iterable[str] | None = None) -> frozenset[Rule]:
    """Check patterns and the kinds that each of them selects; both kinds if none are given.

    Raises:
        ValidationFailed: one of them is not what it should be.
    """
    wanted = frozenset(kinds) if kinds is not None else KINDS
    if not wanted or not wanted <= KINDS:
        unknown = [kind[:40] for kind in sorted(wanted - KINDS)[:1]]  # what came may be long; its beginning tells
        raise ValidationFailed(f"`kinds` takes {' and '.join(sorted(KINDS))}, not {unknown!r}")
    texts = list(patterns)
    for text in texts:
        Pattern(text)
    return frozenset((text, cast("frozenset[Kind]", wanted)) for text in texts)
