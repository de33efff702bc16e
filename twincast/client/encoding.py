"""Encode a program's values: those that have exactly one form in JSON. All others are refused before they are sent.

The limits and errors are those of the server (`wire/values`), so a value is refused alike on every transport.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from numbers import Number
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Raw

from twincast.core.names import check_id
from twincast.core.times import read_time, stored_form
from twincast.errors import BadTime, MalformedJson, TooLarge, ValidationFailed
from twincast.wire.values import VALUE_MAX_DEPTH, VALUE_MAX_KEYS

Time = datetime | str
"""When a reading was measured: a datetime with a zone, or ISO 8601 with a zone."""
Reading = tuple[str, Any] | tuple[str, Any, Time | None]
"""A device and a value, and perhaps when it was measured."""

_INT_MIN, _INT_MAX = -(1 << 63), (1 << 64) - 1
_PLAIN = frozenset({str, bool, type(None), datetime, date, time, UUID, Raw})
_HINTS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    ((bytes, bytearray, memoryview), "make it text, such as base64"),
    ((set, frozenset), "a set has no order; make it a list"),
    (Number, "make it int(…) or float(…)"),
)
_encode = msgspec.json.Encoder(decimal_format="number").encode


def encode_value(value: Any) -> Raw:
    """Return a value's JSON text.

    A value may be what JSON has: text, finite numbers of up to 64 bits, booleans, None, lists, tuples, and dicts with
    text as names; or what has one form in it: Decimal (a number, digit by digit), date, time and datetime (ISO 8601),
    UUID, members of an Enum (their value), dataclasses and Structs (objects), and `msgspec.Raw` (JSON text as it is).

    Raises:
        ValidationFailed: anything else, such as NaN, bytes, sets, a name that is not text, a lone surrogate.
        MalformedJson: a whole number beyond 64 bits.
        TooLarge: nested deeper than 32, or more than 1,024 names.
    """
    if type(value) not in _PLAIN and _count_names(value, VALUE_MAX_DEPTH) > VALUE_MAX_KEYS:
        raise TooLarge(f"a value may have {VALUE_MAX_KEYS} names; this one has more")
    try:
        return Raw(_encode(value))
    except UnicodeEncodeError:
        raise ValidationFailed("a value may not have lone surrogates") from None
    except RecursionError:
        raise _too_deep() from None
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        raise ValidationFailed(f"a value must have a form in JSON: {error}") from None


def encode_time(measured_at: Time | None) -> str | None:
    """Return the time at which a reading was measured, as it is stored; None if it has none.

    Args:
        measured_at: a datetime with a zone, or text, ISO 8601 with a zone.

    Raises:
        BadTime: it has no zone, is no time, or is outside of the years 1 to 9999.
    """
    if measured_at is None:
        return None
    if isinstance(measured_at, str):
        return read_time(measured_at, "`measured_at`")
    if not isinstance(measured_at, datetime):
        raise BadTime(f"`measured_at` must be a datetime, or text, not {_called(measured_at)}")
    if measured_at.utcoffset() is None:
        raise BadTime("`measured_at` needs a zone, such as datetime.now(UTC) has; this datetime has none")
    try:
        return stored_form(measured_at)
    except OverflowError:
        raise BadTime("`measured_at` must be within the years 1 to 9999, in UTC") from None


def parts_of(reading: Reading) -> tuple[str, Any, Time | None]:
    """Return the device, the value and the time of a reading of many.

    Raises:
        ValidationFailed: it has more or less parts.
    """
    if isinstance(reading, str) or not 2 <= len(reading) <= 3:
        raise ValidationFailed("a reading is a device and a value, and perhaps the time at which it was measured")
    device_id, value, *measured_at = reading
    return device_id, value, measured_at[0] if measured_at else None


def encode_args(args: Mapping[str, Any] | None) -> Raw:
    """Return the JSON text of a command's arguments. Raises what `encode_value` raises."""
    if args is not None and not isinstance(args, Mapping):
        raise ValidationFailed(f"`args` must be a dict, not {_called(args)}")
    return encode_value(dict(args or {}))


def checked(name: str, what: str) -> str:
    """Return the name of a device, target or command, if it is valid.

    Raises:
        ValidationFailed: it is not text, is empty, has more than 128 characters, or one that no name may have.
    """
    if not isinstance(name, str):
        raise ValidationFailed(f"{what} must be text, not {_called(name)}")
    check_id(name, what)
    return name


def _count_names(value: Any, depth_left: int) -> int:
    """Check a value and all in it; return how many names its objects have."""
    kind = type(value)
    if kind in _PLAIN:
        return 0
    if isinstance(value, Enum):
        return _count_names(value.value, depth_left)
    if kind is float or kind is int or kind is Decimal:
        _check_number(value)
        return 0
    names, children = _parts(value)
    if depth_left == 0:
        raise _too_deep()
    for child in children:
        names += _count_names(child, depth_left - 1)
        if names > VALUE_MAX_KEYS:
            break
    return names


def _parts(value: Any) -> tuple[int, Iterable[Any]]:
    """Return how many names a container has, and its children."""
    if isinstance(value, dict):
        for name in value:
            if not isinstance(name, str):
                raise ValidationFailed(f"the names in an object must be text, not {_called(name)}; use str(…)")
        return len(value), value.values()
    if isinstance(value, (list, tuple)):
        return 0, value
    if isinstance(value, msgspec.Struct) or (is_dataclass(value) and not isinstance(value, type)):
        members = list(_members(value))
        return len(members), members
    hint = next((f"; {hint}" for kinds, hint in _HINTS if isinstance(value, kinds)), "")
    raise ValidationFailed(f"a value must have a form in JSON, not {_called(value)}{hint}")


def _members(value: Any) -> Iterator[Any]:
    names = value.__struct_fields__ if isinstance(value, msgspec.Struct) else [field.name for field in fields(value)]
    for name in names:
        member = getattr(value, name, msgspec.UNSET)
        if member is not msgspec.UNSET:  # an unset field is left out
            yield member


def _check_number(value: float | Decimal) -> None:
    if str(value).lstrip("-").isdigit():  # a whole number, as JSON writes it
        if not _INT_MIN <= value <= _INT_MAX:
            raise MalformedJson("a number is beyond 64 bits; send it as a string to keep every digit")
    elif (isinstance(value, Decimal) and value.is_snan()) or not math.isfinite(value):
        raise ValidationFailed(f"{value} is not a number in JSON; leave it out, or send None")


def _too_deep() -> TooLarge:
    return TooLarge(f"a value may be nested {VALUE_MAX_DEPTH} deep; this one is deeper")


def _called(value: Any) -> str:
    """Name a value by its type alone: its content may be long, or secret."""
    return f"a {type(value).__name__}"
