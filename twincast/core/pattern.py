"""Patterns of names: `*` stands for any number of any characters, `/` included; every other character for itself."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from twincast.core.literals import LOOK_STEPS, LiteralIndex, Literals
from twincast.core.names import NAME_MAX_CHARS, check_unicode
from twincast.core.sorted_names import SORTED_LOOK_STEPS, SortedNames
from twincast.errors import ValidationFailed

PATTERN_MAX_CHARS = 256
KNOWN_MAX = 20_000
"""How many names an answer is kept for: a gateway sends the same names again and again."""
KNOWN_FROM_STEPS = 16
"""An answer that costs fewer steps is not kept: a match takes a microsecond or two, a kept name a hundred bytes."""
MATCH_STEPS, PART_STEPS, CHARS_A_STEP = 4, 2, 16
"""How many steps a match takes, and each part of the pattern; and how many characters of the pattern are one more."""
CROWD = 8
"""From how many patterns with the same beginning or end on the others are told apart by what is between."""
SIFT_ENDS, SIFT_NAMES = 8, 256
"""Up to how many ends names are sifted before they are matched, and how many names at once: several times as fast."""


class End(NamedTuple):
    """How every name that a pattern selects begins or ends; `ANY_END` if the pattern has neither."""

    text: str
    is_tail: bool


ANY_END = End("", False)


class Pattern:
    r"""Which names are selected: `lab/*`, `*/door`, or one exact name. `\*` is a star, `\\` a backslash.

    Matching never backtracks: each part between stars is searched for once, behind the part before it, so that the time
    is linear in the name. A regular expression would not promise that.
    """

    __slots__ = ("_head", "_inner", "_min_chars", "_tail", "cost", "exact", "is_everything")

    def __init__(self, text: str) -> None:
        """Read a pattern.

        Raises:
            ValidationFailed: it is empty, too long, has a lone surrogate, or a backslash that stands before neither
                `*` nor a backslash.
        """
        if not 1 <= len(text) <= PATTERN_MAX_CHARS:
            raise ValidationFailed(f"a pattern must have 1 to {PATTERN_MAX_CHARS} characters; this one has {len(text)}")
        check_unicode(text, "a pattern")
        self._head, *others = _parts(text)
        self.exact: str | None = None if others else self._head
        """The one name that is selected; None if there may be many."""
        self.is_everything = text == "*"
        self._tail = others.pop() if others else ""
        self._inner = [part for part in others if part]
        inner_chars = sum(map(len, self._inner))
        self._min_chars = len(self._head) + len(self._tail) + inner_chars
        self.cost = MATCH_STEPS + PART_STEPS * len(self._inner) + inner_chars // CHARS_A_STEP
        """How many steps a match of a name takes at most."""

    @property
    def end(self) -> End:
        """How the selected names begin; if that says nothing, how they end."""
        if self._head or not self._tail:
            return End(self._head, False)
        return End(self._tail, True)

    @property
    def literals(self) -> Literals:
        """What every selected name has."""
        return Literals(self._head, self._tail, tuple(self._inner))

    @property
    def is_end(self) -> bool:
        """Whether a name is selected as soon as it has `end`."""
        return not self._inner and not (self._head and self._tail)

    def matches(self, name: str) -> bool:
        """Whether a name is selected; the pattern must cover all of it."""
        if self.exact is not None:
            return name == self.exact
        if len(name) < self._min_chars or not name.startswith(self._head) or not name.endswith(self._tail):
            return False
        at, end = len(self._head), len(name) - len(self._tail)
        for part in self._inner:
            # The leftmost place is always right, for it leaves the most to the parts behind it.
            at = name.find(part, at, end)
            if at < 0:
                return False
            at += len(part)
        return True

    def meets(self, other: "Pattern") -> bool:
        """Whether there is a name that both patterns select."""
        if self.exact is not None:
            return other.matches(self.exact)
        if other.exact is not None:
            return self.matches(other.exact)
        # Both have a star between their ends, so what one needs there may stand behind what the other needs.
        heads = self._head.startswith(other._head) or other._head.startswith(self._head)
        return heads and (self._tail.endswith(other._tail) or other._tail.endswith(self._tail))


class Found(NamedTuple):
    """What one slice of a search found: the selected names, where the next slice begins, and how many steps it took."""

    names: list[str]
    until: int
    steps: int


_NO_STARS: LiteralIndex[Pattern] = LiteralIndex(CROWD)
"""The index of all sets of exact names; each device that watches itself has one."""


class PatternSet:
    """The names that at least one of some patterns selects."""

    __slots__ = (
        "_ask_cost",
        "_heads",
        "_index",
        "_is_found_by_sifting",
        "_is_sifted",
        "_known",
        "_stars",
        "_tails",
        "exact",
        "is_all",
        "star_count",
    )

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        """Put patterns together; `pattern_set` reads them from texts."""
        self.is_all = False
        """Whether every name is selected."""
        self.star_count = 0
        """How many of the patterns have a star."""
        self._known: dict[str, bool] = {}
        self._index = _NO_STARS
        exact: set[str] = set()
        cost, is_told_by_ends = 0, True
        stars: list[Pattern] = []
        for pattern in patterns:
            cost += pattern.cost
            if pattern.exact is not None:
                exact.add(pattern.exact)
                continue
            self.star_count += 1
            is_told_by_ends &= pattern.is_end
            self.is_all |= pattern.is_everything
            stars.append(pattern)
        self.exact = frozenset(exact)
        """The names that are selected by their whole text."""
        self._stars = tuple(stars)
        if stars:
            self._index = LiteralIndex(CROWD)
            for pattern in stars:
                self._index.add(pattern.literals, pattern)
        self._ask_cost = self._index.look_cost(NAME_MAX_CHARS) + cost
        ends = frozenset(pattern.end for pattern in stars)
        self._heads = tuple(end.text for end in ends if not end.is_tail)
        self._tails = tuple(end.text for end in ends if end.is_tail)
        self._is_sifted = len(ends) <= SIFT_ENDS and ANY_END not in ends
        self._is_found_by_sifting = self._is_sifted and is_told_by_ends

    @property
    def literals(self) -> frozenset[Literals]:
        """What the selected names have, by each of the patterns; an exact name begins as all of itself."""
        stars = {pattern.literals for pattern in self._stars}
        return frozenset(stars | {Literals(name, "", ()) for name in self.exact})

    @property
    def is_listed(self) -> bool:
        """Whether no name but those of `exact` is selected."""
        return not self.star_count

    def has(self, name: str) -> bool:
        """Whether a name is selected. An answer that took many steps is kept."""
        if self.is_all or name in self.exact:
            return True
        if self._is_found_by_sifting:
            return name.startswith(self._heads) or name.endswith(self._tails)
        known = self._known.get(name)
        return self.learn(name)[0] if known is None else known

    def learn(self, name: str) -> tuple[bool, int]:
        """Return what `has` returns, and how many steps that took."""
        known = self._known.get(name)
        if known is not None:
            return known, 1
        is_selected, steps = self.ask(name)
        if steps >= KNOWN_FROM_STEPS:
            self._remember(name, is_selected)
        return is_selected, steps

    def ask(self, name: str) -> tuple[bool, int]:
        """Return whether a name is selected, and how many steps that took; nothing is kept."""
        if self.is_all or name in self.exact:
            return True, 1
        steps = self._index.look_cost(len(name))
        for patterns in self._index.near(name):
            for pattern in patterns:
                steps += pattern.cost
                if pattern.matches(name):
                    return True, steps
        return False, steps

    def search(self, names: Sequence[str], start: int, max_steps: int) -> Found:
        """Find the selected names from `start` on, in about `max_steps`; at least one name is matched.

        Nothing is kept: a search matches each name once.
        """
        if self.is_all:
            part = names[start : start + max_steps]
            return Found(list(part), start + len(part), len(part))
        found: list[str] = []
        steps, at = 0, start
        size = min(max(1, max_steps // self._ask_cost), SIFT_NAMES)  # no part costs more than what is left for it
        while at < len(names) and (steps < max_steps or at == start):
            part = names[at : at + size]
            at += len(part)
            if self._is_sifted:
                steps += LOOK_STEPS + len(part)
                part = self._sift(part)
                if self._is_found_by_sifting:
                    found += part
                    continue
            for name in part:
                is_selected, cost = self.ask(name)
                steps += cost
                if is_selected:
                    found.append(name)
        return Found(found, at, steps)

    @property
    def is_found_in_order(self) -> bool:
        """Whether `pick` finds all that is selected: the selected names have a few beginnings and ends."""
        return self._is_sifted and not self.exact

    def pick(self, names: SortedNames) -> tuple[list[str], int]:
        """Return those of some names that are selected, and how many steps that took. See is_found_in_order."""
        found = [name for head in self._heads for name in names.beginning(head)]
        found += [name for tail in self._tails for name in names.ending(tail)]
        steps = SORTED_LOOK_STEPS * (len(self._heads) + len(self._tails)) + len(found)
        if self._is_found_by_sifting:
            return found, steps
        selected = []
        for name in found:
            is_selected, cost = self.ask(name)
            steps += cost
            if is_selected:
                selected.append(name)
        return selected, steps

    def _sift(self, names: Sequence[str]) -> list[str]:
        """Return the names that have one of the ends, or are selected by their whole text."""
        heads, tails, exact = self._heads, self._tails, self.exact
        if not tails and not exact:
            return [name for name in names if name.startswith(heads)]
        return [name for name in names if name.startswith(heads) or name.endswith(tails) or name in exact]

    def _remember(self, name: str, is_selected: bool) -> None:
        if len(self._known) >= KNOWN_MAX:
            for oldest in tuple(islice(self._known, KNOWN_MAX // 4)):
                del self._known[oldest]
        self._known[name] = is_selected


@lru_cache(maxsize=64)
def pattern_set(texts: frozenset[str]) -> PatternSet:
    """Return the set of some patterns; equal texts share one set, and what it keeps of names.

    Raises:
        ValidationFailed: one of the texts is no pattern.
    """
    return PatternSet(map(Pattern, texts))


def _parts(text: str) -> list[str]:
    """Return the texts between the stars."""
    if "\\" not in text:
        return text.split("*")
    parts = [""]
    chars = iter(text)
    for char in chars:
        if char == "*":
            parts.append("")
        elif char == "\\":
            escaped = next(chars, "")
            if escaped not in {"*", "\\"}:
                raise ValidationFailed(f"in a pattern, \\* is a star and \\\\ a backslash; \\{escaped} has no meaning")
            parts[-1] += escaped
        else:
            parts[-1] += char
    return parts
