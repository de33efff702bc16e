"""The literal texts of patterns: by them, those few are found that may select a name, without matching the others."""

from collections import Counter
from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar

PIECE_CHARS = 4
"""How long a piece from between two stars is: long enough to be rare, and there are few lengths to look for."""
LOOK_STEPS, LENGTH_STEPS = 4, 2
"""How many steps a look-up of a name takes, and each length of a beginning or an end; a step is about an eighth of a
microsecond. Each piece of the name is one more."""

T = TypeVar("T")


class Literals(NamedTuple):
    """What every name that a pattern selects has: at its beginning, at its end, and between them. Each may be empty."""

    head: str
    tail: str
    inner: tuple[str, ...]

    def pieces(self) -> Iterator[str]:
        """Yield the pieces of what is between; a text that is shorter than a piece is one."""
        for text in self.inner:
            for start in range(max(1, len(text) - PIECE_CHARS + 1)):
                yield text[start : start + PIECE_CHARS]


class Shelf(Generic[T]):
    """Things by texts, and how many texts of each length there are."""

    __slots__ = ("lengths", "things")

    def __init__(self) -> None:
        self.things: dict[str, dict[T, None]] = {}
        self.lengths: Counter[int] = Counter()

    def add(self, text: str, thing: T) -> None:
        """Keep a thing under a text, behind the older things there."""
        things = self.things.setdefault(text, {})
        self.lengths[len(text)] += not things
        things[thing] = None

    def remove(self, text: str, thing: T) -> None:
        """Remove a thing that was kept under a text."""
        things = self.things[text]
        del things[thing]
        if not things:
            del self.things[text]
            self.lengths[len(text)] -= 1
            if not self.lengths[len(text)]:
                del self.lengths[len(text)]


class Spot(NamedTuple, Generic[T]):
    """Where a thing lies."""

    shelf: Shelf[T]
    text: str


class LiteralIndex(Generic[T]):
    """Things, each with some patterns: those that can select a name are found without matching each.

    For each pattern, a thing lies under one text that the selected names have: their beginning, or if the pattern says
    nothing of that, their end. Where many things lie already, it is the text of the pattern that has the fewest: its
    beginning, its end, or a piece from between. A pattern without any text lies under the empty beginning, which every
    name has.
    """

    __slots__ = ("_by_head", "_by_piece", "_by_tail", "_crowd")

    def __init__(self, crowd: int) -> None:
        """Make an empty index.

        Args:
            crowd: how many things may lie under one text before another is looked for. To look for all pieces of a name
                takes some microseconds too, so this is how many things are matched in as many.
        """
        self._crowd = crowd
        self._by_head: Shelf[T] = Shelf()
        self._by_tail: Shelf[T] = Shelf()
        self._by_piece: Shelf[T] = Shelf()

    def __bool__(self) -> bool:
        return bool(self._by_head.things or self._by_tail.things or self._by_piece.things)

    def add(self, literals: Literals, thing: T) -> Spot[T]:
        """Keep a thing for what a pattern with these literals selects, behind the older things.

        Returns:
            Where it lies, for `remove`. It may lie there for another of its patterns already.
        """
        spot = self._choose(literals)
        spot.shelf.add(spot.text, thing)
        return spot

    def remove(self, spot: Spot[T], thing: T) -> None:
        """Remove a thing from where it lies."""
        spot.shelf.remove(spot.text, thing)

    def near(self, name: str) -> Iterator[dict[T, None]]:
        """Yield the things under each text that a name has; the same thing may lie under several."""
        chars = len(name)
        by_head, by_tail, by_piece = self._by_head, self._by_tail, self._by_piece
        for length in by_head.lengths:
            if length <= chars and (things := by_head.things.get(name[:length])) is not None:
                yield things
        for length in by_tail.lengths:
            if length <= chars and (things := by_tail.things.get(name[chars - length :])) is not None:
                yield things
        for length in by_piece.lengths:
            pieces = {name[start : start + length] for start in range(chars - length + 1)}
            for piece in by_piece.things.keys() & pieces:
                yield by_piece.things[piece]

    def look_cost(self, chars: int) -> int:
        """Return how many steps a look-up of a name of so many characters takes, whatever it finds."""
        ends = len(self._by_head.lengths) + len(self._by_tail.lengths)
        return LOOK_STEPS + LENGTH_STEPS * ends + len(self._by_piece.lengths) * chars

    def _choose(self, literals: Literals) -> Spot[T]:
        head, tail, _ = literals
        spot = Spot(self._by_head, head) if head or not tail else Spot(self._by_tail, tail)
        fewest = _count(spot)
        if fewest < self._crowd:
            return spot
        for other in self._others(literals):
            count = _count(other)
            if count < fewest:
                spot, fewest = other, count
                if not count:
                    break
        return spot

    def _others(self, literals: Literals) -> Iterator[Spot[T]]:
        if literals.head and literals.tail:
            yield Spot(self._by_tail, literals.tail)
        for piece in literals.pieces():
            yield Spot(self._by_piece, piece)


def _count(spot: Spot[T]) -> int:
    return len(spot.shelf.things.get(spot.text, ()))
