"""Which JSON is accepted: I-JSON (RFC 7493), so that every reader on every wire understands the same thing.

No duplicate names, no number beyond 64 bits, no NaN, no lone surrogate; and bounded in depth and names. msgspec has
checked the syntax before; what stands here is what it does not check.

The colon tally: a duplicate name is found by counting. Each member of an object has one `:` outside of texts. If a
message has as many `:` as its known names and texts explain, no name came twice, and no second parser is needed; any
other count is settled by `refuse_duplicate_names`, which is slow and sure.

Most values are plain: arrays without objects in them, and objects with few. msgspec checks those by their type while it
parses. All others are walked.
"""

import json
from collections.abc import Iterable
from types import GenericAlias
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from twincast.errors import MalformedJson, TooLarge

VALUE_MAX_DEPTH = 32
VALUE_MAX_KEYS = 1_024

_INT_MIN, _INT_MAX = -(1 << 63), (1 << 64) - 1
_PLAIN_NUMBER_MAX_CHARS = 18  # a number of up to 18 characters without exponent fits 64 bits either way
_TEXT_OR_WORD, _CONTAINER, _ARRAY = frozenset(b'"tfn'), frozenset(b"{["), ord("[")
_PLAIN_MAX_DEPTH = 6  # the types are made at each start: half a millisecond for so many levels
_COLON_ESCAPED = b"\\u003"  # a text may have a `:` that its JSON has not: "\u003a"
_SMALL_E, _LARGE_E = b"eE"  # bytes are searched for a number five times as fast as for bytes
_BACKSLASH = ord("\\")  # a byte is found five times as fast as bytes of one
_decode = msgspec.json.Decoder().decode


def _types_of_plain() -> tuple[Any, Any]:
    """Return the types of plain arrays and of plain objects; see `_parse_plain`.

    An integer beyond 63 bits does not pass, although it may fit 64: msgspec has no bound above that.
    """
    scalar = str | float | bool | None | Annotated[int, Meta(ge=_INT_MIN, le=-_INT_MIN - 1)]
    nested: list[Any] = [scalar]  # each with one more array around it
    for _ in range(_PLAIN_MAX_DEPTH - 1):
        nested.append(scalar | GenericAlias(list, nested[-1]))
    plain_object = GenericAlias(dict, (str, scalar))
    for arrays in nested[1:]:
        plain_object = GenericAlias(dict, (str, arrays | plain_object))
    return GenericAlias(list, nested[-1]), plain_object


_decode_plain_array, _decode_plain_object = (msgspec.json.Decoder(kind).decode for kind in _types_of_plain())


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
        if len(text) > _PLAIN_NUMBER_MAX_CHARS or _SMALL_E in text or _LARGE_E in text:
            _check_number(_parse(text))
        return 0
    colons = text.count(b":")
    value = _parse_plain(text)
    if value is None:
        value = _parse(text)
    elif first == _ARRAY or ((len(value) == colons or _count_names(value) == colons) and colons <= VALUE_MAX_KEYS):
        return colons
    names, texts = _walk(value)
    if names > VALUE_MAX_KEYS:
        raise TooLarge(f"a value may have {VALUE_MAX_KEYS} names; this one has more")
    if names != colons and (_COLON_ESCAPED in text or names + "".join(texts).count(":") != colons):
        # A duplicate name, which the parser has dropped; or a `:` written as an escape: the slow way tells which.
        refuse_duplicate_names(text)
    return colons


def _parse_plain(text: bytes) -> Any:
    """Parse an array without objects, or an object with no objects in its arrays; None if it is not such a value.

    What comes back is nested no deeper than it may be and has no number beyond 64 bits; its names were not counted.
    """
    try:
        if text[0] != _ARRAY:
            return _decode_plain_object(text)
        return None if b"{" in text else _decode_plain_array(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _count_names(value: dict[str, Any]) -> int:
    """Return how many names there are in an object, and in objects that are its members."""
    names = len(value)
    for child in value.values():
        if type(child) is dict:
            names += _count_names(child)
    return names


def has_escapes_beside(text: bytes, values: Iterable[bytes]) -> bool:
    """Whether a message has an escape outside of its values: the colon tally does not hold for a name with one."""
    return _BACKSLASH in text and text.count(b"\\") != sum(value.count(b"\\") for value in values)


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


def _walk(value: Any) -> tuple[int, list[str]]:
    """Look at all of a parsed value, and return how many names its objects have, and its texts, names included.

    One level after another and without a call for each part, so that a value of many small parts costs not much more
    than one of few.
    """
    names = 0
    texts: list[str] = []
    level = [value]
    for depth in range(VALUE_MAX_DEPTH + 1):
        below: list[Any] = []
        for part in level:
            kind = type(part)
            if kind is str:
                texts.append(part)
            elif kind is int:
                if not _INT_MIN <= part <= _INT_MAX:
                    _check_number(part)
            elif kind is dict or kind is list:
                if depth == VALUE_MAX_DEPTH:
                    raise TooLarge(f"a value may be nested {VALUE_MAX_DEPTH} deep; this one is deeper")
                if kind is dict:
                    names += len(part)
                    texts += part
                    below += part.values()
                else:
                    below += part
        if not below:
            break
        level = below
    return names, texts


def _check_number(value: Any) -> None:
    if isinstance(value, int) and not _INT_MIN <= value <= _INT_MAX:
        raise MalformedJson("a number is beyond 64 bits; send it as a string to keep every digit")
