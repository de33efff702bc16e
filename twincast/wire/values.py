"""Which JSON we take: I-JSON (RFC 7493), so that every reader on every wire understands the same thing.

No duplicate names, no number beyond 64 bits, no NaN, no lone surrogate; and bounded in depth and names. msgspec has
checked the syntax before anything comes here; these are the facts that it does not check.
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
    """Check a value's JSON text and return how many colons outside of names it may explain: those in it.

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
        # A colon in a string, or a duplicate name that the parser folded away: the slow way tells.
        refuse_duplicate_names(text)
    return colons


def _is_flat(value: dict[str, Any]) -> bool:
    """Say, fast, that an object is what most devices send: plain members, and integers that fit 64 bits for certain."""
    for child in value.values():
        kind = type(child)
        if (kind is int and not -_PLAIN_INT < child < _PLAIN_INT) or kind is dict or kind is list:
            return False
    return True


def compact(text: bytes) -> bytes:
    """Leave out the white space between a value's tokens, so that live, stored and read again it is the same text."""
    return text if len(text.split(None, 1)) == 1 else msgspec.json.format(text, indent=-1)


def refuse_duplicate_names(text: bytes) -> None:
    """Raise MalformedJson if an object anywhere in the text has the same name twice."""
    try:
        json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise MalformedJson(f"expected JSON: {error}") from None


def _refuse_constant(name: str) -> None:
    """Refuse NaN and Infinity, which the standard library takes and JSON does not have."""
    raise MalformedJson(f"expected JSON: {name} is not a number that JSON has")


def _parse(text: bytes) -> Any:
    try:
        return _decode(text)
    except RecursionError:
        raise TooLarge(f"a value may be nested {VALUE_MAX_DEPTH} deep; this one is deeper") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedJson(f"expected JSON: {str(error)[:200]}") from None  # it tells a path, as long as it is deep


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
