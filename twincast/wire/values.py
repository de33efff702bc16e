"""Which JSON is accepted: I-JSON (RFC 7493), so that every reader on every wire understands the same thing.

No duplicate names, no number beyond 64 bits, no NaN, no lone surrogate; and bounded in depth and names. msgspec has
checked the syntax before; what stands here is what it does not check.

The colon tally: a duplicate name is found by counting. Each member of an object has one `:` outside of texts. If a
message has as many `:` as its known names and texts explain, no name came twice, and no second parser is needed; any
other count is settled by `refuse_duplicate_names`, which is slow and sure.
"""

import json
from collections.abc import Iterable
from typing import Any

import msgspec

from twincast.errors import MalformedJson, TooLarge

VALUE_MAX_DEPTH = 32
VALUE_MAX_KEYS = 1_024

_INT_MIN, _INT_MAX = -(1 << 63), (1 << 64) - 1
_PLAIN_NUMBER_MAX_CHARS = 18  # a number of up to 18 characters without exponent fits 64 bits either way
_PLAIN_INT = 1 << 62
_TEXT_OR_WORD, _CONTAINER = frozenset(b'"tfn'), frozenset(b"{[")
_decode = msgspec.json.Decoder().decode


def check_value(text: bytes) -> int:
    """Check the JSON text of a value, and return the number of `:` in it for the caller's colon tally, see above.

    Raises:
        MalformedJson: duplicate names, or a number that 64 bits do not hold.
        TooLarge: nested deeper than 32, or more than 1,024 names.
    """
    first = text[0]
    if first in _TEXT_OR_WORD:
        return text.count(b":")
    if first not in _CONTAINER:
        if len(text) > _PLAIN_NUMBER_MAX_CHARS or b"e" in text or b"E" in text:
            _check_number(_parse(text))
        return 0
    colons = text.count(b":")
    value = _parse(text)
    if type(value) is dict and len(value) == colons <= VALUE_MAX_KEYS and _is_flat(value):
        return colons
    if _count_names(value, VALUE_MAX_DEPTH) != colons:
        # A colon in a text, or a duplicate name that the parser has dropped: the slow way tells which.
        refuse_duplicate_names(text)
    return colons


def _is_flat(value: dict[str, Any]) -> bool:
    """Say fast whether an object is what most devices send: plain members, and integers that surely fit 64 bits."""
    for child in value.values():
        kind = type(child)
        if (kind is int and not -_PLAIN_INT < child < _PLAIN_INT) or kind is dict or kind is list:
            return False
    return True


def compact(text: bytes) -> bytes:
    """Return a value without white space between its tokens: the same text live, stored and read again."""
    return text if len(text.split(None, 1)) == 1 else msgspec.json.format(text, indent=-1)


def refuse_duplicate_names(text: bytes) -> None:
    """Raise MalformedJson if an object anywhere in the text has the same name twice."""
    try:
        json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise MalformedJson(f"expected JSON: {error}") from None


def _refuse_constant(name: str) -> None:
    """Refuse NaN and Infinity, which the standard library accepts and JSON does not have."""
    raise MalformedJson(f"expected JSON: {name} is not a number that JSON has")


def _parse(text: bytes) -> Any:
    try:
        return _decode(text)
    except RecursionError:
        raise TooLarge(f"a value may be nested {VALUE_MAX_DEPTH} deep; this one is deeper") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedJson(f"expected JSON: {str(error)[:200]}") from None  # msgspec adds the path, which may be long


def _unique(pairs: list[tuple[str, Any]]) -> None:
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise MalformedJson(f"an object has the name {twice[:40]!r} twice; which value counts would be a guess")


def _count_names(value: Any, depth_left: int) -> int:
    """Walk a parsed value within its bounds; return how many names its objects have."""
    names = 0
    children: Iterable[Any]
    if isinstance(value, dict):
        names, children = len(value), value.values()
    elif isinstance(value, list):
        children = value
    else:
        _check_number(value)
        return 0
    if depth_left == 0:
        raise TooLarge(f"a value may be nested {VALUE_MAX_DEPTH} deep; this one is deeper")
    for child in children:
        if type(child) is not float and type(child) is not str:
            names += _count_names(child, depth_left - 1)
    if names > VALUE_MAX_KEYS:
        raise TooLarge(f"a value may have {VALUE_MAX_KEYS} names; this one has more")
    return names


def _check_number(value: Any) -> None:
    if isinstance(value, int) and not _INT_MIN <= value <= _INT_MAX:
        raise MalformedJson("a number is beyond 64 bits; send it as a string to keep every digit")
