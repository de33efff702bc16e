"""Device patterns: `*` stands for any characters, also none, also `/`; everything else for itself."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import Generic, NamedTuple, TypeVar

from twincast.core.names import check_unicode
from twincast.errors import ValidationFailed

PATTERN_MAX_CHARS = 256
KNOWN_MAX = 20_000
"""How many names an answer is remembered for: a gateway sends the same again and again."""
KNOWN_FROM_STEPS = 16
"""What costs less is found out each time: it takes a microsecond or two, and a name some hundred bytes."""
LOOK_STEPS, LENGTH_STEPS = 4, 2
"""What it takes to look a name up, and for each length of an end; a step is about an eighth of a microsecond."""
MATCH_STEPS, PART_STEPS, CHARS_A_STEP = 4, 2, 16
"""What it takes to hold a name against a pattern, for each part of it, and how many characters of it are one more."""
SIFT_ENDS, SIFT_NAMES = 8, 256
"""With how few ends, and how many at once, names are sifted before they are asked about: several times as fast."""

T = TypeVar("T")


class End(NamedTuple):
    """How every name begins or ends that a pattern selects; `ANY_END` if that says nothing."""

    text: str
    is_tail: bool


ANY_END = End("", False)


class Pattern:
    r"""Which names are selected: `lab/*`, `*/door`, or one exact name. `\*` is a star, `\\` a backslash.

    Matching never goes back: each part between stars is looked for once, behind the one before it, so that no
    character of a name is searched for two parts. A regular expression would not promise that.
    """

    __slots__ = ("_head", "_inner", "_min_chars", "_tail", "cost", "exact", "is_everything")

    def __init__(self, text: str) -> None:
        """Read a pattern.

        Raises:
            ValidationFailed: empty, too long, with a lone surrogate, or a backslash before something else than `*` and
                itself.
        """
        if not 1 <= len(text) <= PATTERN_MAX_CHARS:
            raise ValidationFailed(f"a pattern takes 1 to {PATTERN_MAX_CHARS} characters; this one has {len(text)}")
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
        """How many steps it takes at most to hold a name against this."""

    @property
    def end(self) -> End:
        """What is known of the names that are selected: how they begin, else how they end."""
        if self._head or not self._tail:
            return End(self._head, False)
        return End(self._tail, True)

    @property
    def is_end(self) -> bool:
        """Whether `end` says all."""
        return not self._inner and not (self._head and self._tail)

    def matches(self, name: str) -> bool:
        """Whether a name is selected; the pattern must cover all of it."""
        if self.exact is not None:
            return name == self.exact
        if len(name) < self._min_chars or not name.startswith(self._head) or not name.endswith(self._tail):
            return False
        at, end = len(self._head), len(name) - len(self._tail)
        for part in self._inner:
            # The leftmost place is always right: it leaves the most for the parts that follow.
            at = name.find(part, at, end)
            if at < 0:
                return False
            at += len(part)
        return True

    def meets(self, other: "Pattern") -> bool:
        """Whether there is a name that both select."""
        if self.exact is not None:
            return other.matches(self.exact)
        if other.exact is not None:
            return self.matches(other.exact)
        # Between the ends there are stars on both sides: what one needs there may stand behind what the other does.
        heads = self._head.startswith(other._head) or other._head.startswith(self._head)
        return heads and (self._tail.endswith(other._tail) or other._tail.endswith(self._tail))


class Ends(Generic[T]):
    """Things by the ends of patterns: which of them can concern a name is found without asking each.

    What says nothing of a name's beginning or end is always found.
    """

    __slots__ = ("_by_head", "_by_tail", "_head_lengths", "_tail_lengths")

    def __init__(self) -> None:
        self._by_head: dict[str, dict[T, None]] = {}
        self._by_tail: dict[str, dict[T, None]] = {}
        self._head_lengths: Counter[int] = Counter()
        self._tail_lengths: Counter[int] = Counter()

    def __bool__(self) -> bool:
        return bool(self._by_head or self._by_tail)

    @property
    def ends(self) -> Iterator[End]:
        """What there is something under."""
        yield from (End(text, False) for text in self._by_head)
        yield from (End(text, True) for text in self._by_tail)

    @property
    def look_cost(self) -> int:
        """How many steps it takes to look up a name, whatever is found."""
        return LOOK_STEPS + LENGTH_STEPS * (len(self._head_lengths) + len(self._tail_lengths))

    def add(self, end: End, thing: T) -> None:
        """Keep a thing under an end; the newest of an end stands last."""
        found, lengths = self._side(end)
        things = found.setdefault(end.text, {})
        if not things:
            lengths[len(end.text)] += 1
        things[thing] = None

    def remove(self, end: End, thing: T) -> None:
        """Forget a thing that was kept under an end."""
        found, lengths = self._side(end)
        things = found[end.text]
        del things[thing]
        if not things:
            del found[end.text]
            lengths[len(end.text)] -= 1
            if not lengths[len(end.text)]:
                del lengths[len(end.text)]

    def near(self, name: str) -> Iterator[dict[T, None]]:
        """Yield what stands under the ends that a name has."""
        chars = len(name)
        for length in self._head_lengths:
            if length <= chars and (things := self._by_head.get(name[:length])) is not None:
                yield things
        for length in self._tail_lengths:
            if length <= chars and (things := self._by_tail.get(name[chars - length :])) is not None:
                yield things

    def _side(self, end: End) -> tuple[dict[str, dict[T, None]], Counter[int]]:
        return (self._by_tail, self._tail_lengths) if end.is_tail else (self._by_head, self._head_lengths)


class Found(NamedTuple):
    """What came of a part of a long search: the names that are selected, up to which one it went, and what it cost."""

    names: list[str]
    until: int
    steps: int


class PatternSet:
    """The names that any of some patterns selects."""

    __slots__ = (
        "_ask_cost",
        "_heads",
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
        """Put patterns together; `names_of` reads them from texts."""
        self.is_all = False
        """Whether every name is selected."""
        self.star_count = 0
        """How many of the patterns have a star."""
        self._known: dict[str, bool] = {}
        self._stars: Ends[Pattern] = Ends()
        exact: set[str] = set()
        cost, is_told_by_ends = 0, True
        for pattern in patterns:
            cost += pattern.cost
            if pattern.exact is not None:
                exact.add(pattern.exact)
                continue
            self.star_count += 1
            is_told_by_ends &= pattern.is_end
            self.is_all |= pattern.is_everything
            self._stars.add(pattern.end, pattern)
        self.exact = frozenset(exact)
        """The names that are selected by their whole text."""
        self._ask_cost = self._stars.look_cost + cost
        ends = frozenset(self._stars.ends)
        self._heads = tuple(end.text for end in ends if not end.is_tail)
        self._tails = tuple(end.text for end in ends if end.is_tail)
        self._is_sifted = len(ends) <= SIFT_ENDS and ANY_END not in ends
        self._is_found_by_sifting = self._is_sifted and is_told_by_ends

    @property
    def ends(self) -> frozenset[End]:
        """How the selected names begin or end; an exact one begins as all of it."""
        return frozenset({*self._stars.ends, *(End(name, False) for name in self.exact)})

    @property
    def is_listed(self) -> bool:
        """Whether `exact` is all that is selected."""
        return not self.star_count

    def has(self, name: str) -> bool:
        """Whether a name is selected. An answer that was hard to find is remembered."""
        if self.is_all or name in self.exact:
            return True
        if self._is_found_by_sifting:
            return name.startswith(self._heads) or name.endswith(self._tails)
        known = self._known.get(name)
        return self.learn(name)[0] if known is None else known

    def learn(self, name: str) -> tuple[bool, int]:
        """Return what `has` does, and how many steps it took to find out."""
        known = self._known.get(name)
        if known is not None:
            return known, 1
        is_selected, steps = self.ask(name)
        if steps >= KNOWN_FROM_STEPS:
            self._remember(name, is_selected)
        return is_selected, steps

    def ask(self, name: str) -> tuple[bool, int]:
        """Return whether a name is selected, and how many steps it took to find out; nothing is remembered."""
        if self.is_all or name in self.exact:
            return True, 1
        steps = self._stars.look_cost
        for patterns in self._stars.near(name):
            for pattern in patterns:
                steps += pattern.cost
                if pattern.matches(name):
                    return True, steps
        return False, steps

    def search(self, names: Sequence[str], start: int, max_steps: int) -> Found:
        """Find the selected ones among names from `start` on, in at most about so many steps; at least one is asked.

        Nothing is remembered: who has many names asks for each once.
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

    def _sift(self, names: Sequence[str]) -> list[str]:
        """Return the names that have one of the ends, or stand there by their whole text."""
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
    """Return the names that texts of patterns select; equal texts share what is remembered.

    Raises:
        ValidationFailed: one of them cannot be.
    """
    return PatternSet(map(Pattern, texts))


def _parts(text: str) -> list[str]:
    """Return what stands between the stars."""
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
                raise ValidationFailed(f"in a pattern, \\* is a star and \\\\ a backslash; \\{escaped} is nothing")
            parts[-1] += escaped
        else:
            parts[-1] += char
    return parts
