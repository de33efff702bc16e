"""The members of an object in a JSON text, each as it comes: a state is as large as it is, and memory is not."""

import json
from collections.abc import Iterable, Iterator

MEMBER_MAX_CHARS = 16 * 1024 * 1024
"""What is longer is no device's state; whoever sends it is not read to the end."""
_WHITE = " \t\r\n"
_GOES_ON = frozenset("0123456789.eE+-")
"""What stands behind a number that is not whole yet."""
_decode = json.JSONDecoder().raw_decode


def members(pieces: Iterable[str], under: str) -> Iterator[tuple[str, str]]:
    """Yield the names in the object that is a member of the whole, and the text of each one's value.

    Args:
        pieces: the JSON text of an object, cut anywhere.
        under: the name of the member; one that is missing is as one that is empty.

    Raises:
        ValueError: that is not what came, or not all of it.
    """
    text = _Text(pieces)
    text.take("{")
    for name in text.names():
        if name != under:
            text.value()
            continue
        text.take("{")
        for inner in text.names():
            yield inner, text.value()


class _Text:
    def __init__(self, pieces: Iterable[str]) -> None:
        self._pieces = iter(pieces)
        self._held = ""
        self._at = 0

    def names(self) -> Iterator[str]:
        """Yield the names of an object whose brace is taken, each up to its colon; its value is to be taken then."""
        if self.peek() != "}":
            separator = ","
            while separator == ",":
                name = json.loads(self.value())
                if not isinstance(name, str):
                    raise ValueError("a name is a string")
                self.take(":")
                yield name
                separator = self.take(",}")
            return
        self.take("}")

    def take(self, expected: str) -> str:
        """Take one of some characters."""
        char = self.peek()
        if char not in expected:
            raise ValueError(f"expected one of {expected}, not {char}")
        self._at += 1
        return char

    def peek(self) -> str:
        """Return the next character that is no white space."""
        while True:
            while self._at < len(self._held):
                char = self._held[self._at]
                if char not in _WHITE:
                    return char
                self._at += 1
            self._read()

    def value(self) -> str:
        """Take a value, and return its text."""
        self.peek()
        while True:
            try:
                _, end = _decode(self._held, self._at)
                if end < len(self._held) and self._held[end] not in _GOES_ON:
                    text = self._held[self._at : end]
                    self._at = end
                    return text
            except json.JSONDecodeError:
                pass
            except RecursionError:
                raise ValueError("too deep") from None
            self._read()

    def _read(self) -> None:
        rest = self._held[self._at :]
        if len(rest) > MEMBER_MAX_CHARS:
            raise ValueError("a value is too long")
        piece = next(self._pieces, None)
        if piece is None:
            raise ValueError("the text ends too early")
        self._held, self._at = rest + piece, 0
