"""What one connection receives: patterns with their kinds, delivery mode, rate, and the rights that bound it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, cast
from weakref import WeakValueDictionary

from twincast.core.literals import Literals
from twincast.core.model import KINDS, KINDS_UNASKED, Kind, Topic
from twincast.core.names import listed
from twincast.core.pattern import ANY_END, Pattern, PatternSet, pattern_set
from twincast.errors import ValidationFailed

Mode = Literal["latest", "every"]
Rule = tuple[str, frozenset[Kind]]
_Key = tuple[frozenset[Rule], Mode, float | None, frozenset[str]]

EVERYWHERE = frozenset({"*"})
PATTERNS_MAX, STARS_MAX = 1_000, 100
"""Exact names are found in one lookup; patterns with a star are matched against every name, and so cost more."""
RULE_STEPS = 20
"""How many steps of a search a pattern costs: it is read, put among those of all clients, and taken out again."""
MAX_HZ_MIN, MAX_HZ_MAX = 0.01, 1_000.0
NO_PATTERNS = PatternSet(())


class Wanted:
    """Rules, read once: for each kind the names that are selected."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        """Read the patterns of rules.

        Raises:
            ValidationFailed: one of them is no pattern.
        """
        by_kinds: dict[frozenset[Kind], list[Pattern]] = {}
        for text, kinds in rules:
            by_kinds.setdefault(kinds, []).append(Pattern(text))
        self.stars = [pattern for patterns in by_kinds.values() for pattern in patterns if pattern.exact is None]
        self._by_kind: dict[Kind, PatternSet] = {}
        if len(by_kinds) == 1:  # as nearly always: the kinds share what is kept of names
            ((kinds, patterns),) = by_kinds.items()
            self._by_kind = dict.fromkeys(kinds, PatternSet(patterns))
        elif by_kinds:
            for kind in KINDS:
                wanting = [patterns for kinds, patterns in by_kinds.items() if kind in kinds]
                self._by_kind[kind] = PatternSet(pattern for patterns in wanting for pattern in patterns)

    def names(self, kind: Kind) -> PatternSet:
        """Return the selected names of a kind."""
        return self._by_kind.get(kind, NO_PATTERNS)

    @cached_property
    def exact(self) -> frozenset[Topic]:
        """The topics that are selected by their whole name, without a star."""
        return frozenset((kind, name) for kind, names in self._by_kind.items() for name in names.exact)

    def all_of(self, listed: frozenset[str]) -> frozenset[Topic]:
        """Return the topics of some names, for each kind of which every name is selected."""
        return frozenset((kind, name) for kind, names in self._by_kind.items() if names.is_all for name in listed)


@dataclass(frozen=True)
class Subscription:
    """What one connection receives. Connections with equal subscriptions share a group and its casts.

    Args:
        rules: patterns, each once, with its kinds.
        mode: "latest" merges per device when the client does not keep up; "every" never merges.
        max_hz: at most how often a second entries are sent; None for as they come. Only with "latest".
        within: the patterns of what the client has the right to read. Nothing else exists for it.
    """

    rules: frozenset[Rule] = frozenset({("*", KINDS_UNASKED)})
    mode: Mode = "latest"
    max_hz: float | None = None
    within: frozenset[str] = EVERYWHERE
    _wanted: Wanted | None = field(default=None, repr=False, compare=False)  # goes along where the rules stay the same
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the whole.

        Raises:
            ValidationFailed: there are too many patterns, or mode and frequency do not go together.
        """
        if len(self.rules) > PATTERNS_MAX:
            count = len(self.rules)
            raise ValidationFailed(f"a subscription must have at most {PATTERNS_MAX} patterns; this one has {count}")
        if self._wanted is None:
            object.__setattr__(self, "_wanted", Wanted(self.rules))
        stars = len(self.wanted.stars)
        if stars > STARS_MAX:
            raise ValidationFailed(f"at most {STARS_MAX} patterns may have a star; {stars} of these have one")
        if self.mode not in {"latest", "every"}:
            raise ValidationFailed(f"`mode` must be latest or every, not {str(self.mode)[:40]!r}")
        if self.max_hz is not None:
            if self.mode == "every":
                raise ValidationFailed("`max_hz` goes with mode latest; mode every sends each event as it comes")
            if not MAX_HZ_MIN <= self.max_hz <= MAX_HZ_MAX:
                raise ValidationFailed(f"`max_hz` must be {MAX_HZ_MIN} to {MAX_HZ_MAX:g}, not {self.max_hz}")
        object.__setattr__(self, "_hash", hash((self.rules, self.mode, self.max_hz, self.within)))

    def __hash__(self) -> int:
        return self._hash

    @property
    def wanted(self) -> Wanted:
        """What the rules ask for, before rights narrow it."""
        assert self._wanted is not None
        return self._wanted

    @cached_property
    def readable(self) -> PatternSet:
        """The names that the client has the right to read."""
        return pattern_set(self.within)

    @cached_property
    def whole_kinds(self) -> frozenset[Kind]:
        """The kinds of which every name is selected."""
        if not self.readable.is_all:
            return frozenset()
        return frozenset(kind for text, kinds in self.rules if text == "*" for kind in kinds)

    @cached_property
    def is_everything(self) -> bool:
        """Whether every entry is selected of the kinds that come unasked."""
        return self.whole_kinds >= KINDS_UNASKED

    @cached_property
    def wants_late(self) -> bool:
        """Whether late readings are selected, be it of some names."""
        return any("late" in kinds for _, kinds in self.rules)

    @cached_property
    def exact(self) -> frozenset[Topic]:
        """The topics that are selected by their whole name, without a star."""
        wanted, readable = self.wanted, self.readable
        if readable.is_all:
            return wanted.exact
        named = frozenset((kind, name) for kind, name in wanted.exact if readable.has(name))
        return named | wanted.all_of(readable.exact) if readable.is_listed else named

    @cached_property
    def literals(self) -> frozenset[Literals]:
        """What the selected names that are not in `exact` have, by each pattern; empty if there are no others."""
        wanted, readable = self.wanted, self.readable
        if readable.is_listed and all(pattern.is_everything for pattern in wanted.stars):
            return frozenset()
        if not readable.is_all and any(pattern.end == ANY_END for pattern in wanted.stars):
            return readable.literals  # the wanted patterns say little
        return frozenset(pattern.literals for pattern in wanted.stars)

    def selects(self, topic: Topic) -> bool:
        """Whether entries of a topic are wanted and readable."""
        if topic in self.exact or topic[0] in self.whole_kinds:
            return True
        kind, name = topic
        return bool(self.literals) and self.readable.has(name) and self.wanted.names(kind).has(name)

    def ask(self, topic: Topic) -> tuple[bool, int]:
        """Return what `selects` returns, and how many steps that took; nothing is kept."""
        kind, name = topic
        is_wanted, steps = self.wanted.names(kind).ask(name)
        if not is_wanted or self.readable.is_all:
            return is_wanted, steps
        is_readable, more = self.readable.ask(name)
        return is_readable, steps + more

    def learn(self, topic: Topic) -> tuple[bool, int]:
        """Return what `ask` returns; an answer that took many steps is kept."""
        if topic in self.exact or topic[0] in self.whole_kinds:
            return True, 1
        kind, name = topic
        is_wanted, steps = self.wanted.names(kind).learn(name)
        if not is_wanted or self.readable.is_all:
            return is_wanted, steps
        is_readable, more = self.readable.learn(name)
        return is_readable, steps + more

    def adding(self, rules: Iterable[Rule]) -> "Subscription":
        """Return this subscription with more patterns; a pattern that it has already gets the new kinds."""
        added = dict(rules)
        return self._with_rules((dict(self.rules) | added).items()) if added else self

    def removing(self, patterns: Sequence[str] | None) -> "Subscription":
        """Return this subscription without some patterns, or without any (None)."""
        gone = frozenset(patterns or ())
        return self._with_rules(() if patterns is None else (rule for rule in self.rules if rule[0] not in gone))

    def inside(self, readable: frozenset[str]) -> "Subscription":
        """Return this subscription narrowed to what some patterns select: all that the client has the right to read."""
        within = EVERYWHERE if "*" in readable else readable
        if within == self.within:
            return self
        key = (self.rules, self.mode, self.max_hz, within)
        return _in_use.get(key) or _in_use.setdefault(key, replace(self, within=within))

    def _with_rules(self, rules: Iterable[Rule]) -> "Subscription":
        return replace(self, rules=frozenset(rules), _wanted=None)

    def described(self) -> dict[str, Any]:
        """Return this subscription as the hello shows it."""
        devices = {text: sorted(kinds) for text, kinds in sorted(self.rules)}
        return {"devices": devices, "mode": self.mode, "max_hz": self.max_hz}


_in_use: WeakValueDictionary[_Key, Subscription] = WeakValueDictionary()


def subscription_to(rules: frozenset[Rule], mode: Mode = "latest", max_hz: float | None = None) -> Subscription:
    """Return a subscription; equal ones are one object, so that thousands of clients that ask alike share it.

    It is remembered for as long as somebody uses it: what it keeps of names must not outlive the clients.

    Raises:
        ValidationFailed: see Subscription.
    """
    key = (rules, mode, max_hz, EVERYWHERE)
    return _in_use.get(key) or _in_use.setdefault(key, Subscription(rules, mode, max_hz))


EVERYTHING = subscription_to(frozenset({("*", KINDS_UNASKED)}))


def rules_of(patterns: str | Iterable[str], kinds: str | Iterable[str] | None = None) -> frozenset[Rule]:
    """Return patterns with the kinds that each of them selects; those that come unasked if none are given.

    A text alone is one pattern, or one kind.

    Raises:
        ValidationFailed: a kind is not known. The patterns are read when they become a subscription.
    """
    wanted = frozenset(listed(kinds)) if kinds is not None else KINDS_UNASKED
    if not wanted or not wanted <= KINDS:
        unknown = [kind[:40] for kind in sorted(wanted - KINDS)[:1]]  # it may be long
        *first, last = sorted(KINDS)
        raise ValidationFailed(f"`kinds` must be of {', '.join(first)} and {last}, not {unknown!r}")
    return frozenset((text, cast("frozenset[Kind]", wanted)) for text in listed(patterns))
