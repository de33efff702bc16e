"""Read the members of an object in a JSON text one by one, as they arrive: a state may be larger than the memory."""

import json
from collections.abc import Iterable, Iterator

MEMBER_MAX_CHARS = 16 * 1024 * 1024
"""No device's state is longer; a text with a longer member is not read further."""
_WHITE_SPACE = " \t\r\n"
_IN_A_NUMBER = frozenset("0123456789.eE+-")
"""Characters that may continue a number."""
_decode = json.JSONDecoder().raw_decode


def members(pieces: Iterable[str], under: str) -> Iterator[tuple[str, str]]:
    """Yield the names in one member of a JSON object, itself an object, each with the text of its value.

    Args:
        pieces: the JSON text of the outer object, cut anywhere.
        under: the name of the member; if it is missing, nothing is yielded.

    Raises:
        ValueError: the text is something else, or incomplete.
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
        """Yield the names of an object behind its brace, each up to its colon; the caller takes the value."""
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
        """Take the next character, one of those expected."""
        char = self.peek()
        if char not in expected:
            raise ValueError(f"expected one of {expected}, not {char}")
        self._at += 1
        return char

    def peek(self) -> str:
        """Return the next character that is not white space."""
        while True:
            while self._at < len(self._held):
                char = self._held[self._at]
                if char not in _WHITE_SPACE:
                    return char
                self._at += 1
            self._read()

    def value(self) -> str:
        """Take a value; return its text."""
        self.peek()
        while True:
            try:
                _, end = _decode(self._held, self._at)
                if end < len(self._held) and self._held[end] not in _IN_A_NUMBER:
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
