"""Buckets of time: their widths, and where they begin and end.

Buckets are whole, and aligned to the epoch or, from a day on, to the calendar of a zone: never to what was asked for.
So two charts of the same readings show the same buckets, and a chart that moves does not shimmer.
"""

import math
import re
from collections.abc import Sequence
from datetime import date, datetime, timedelta, tzinfo
from typing import NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from twincast.errors import BadRange, TooMuch
from twincast.history.times import DAY_US, HOUR_US, MAX_US, MIN_US, MINUTE_US, SECOND_US, datetime_of, us_of

BUCKETS_MAX = 10_000
"""How many buckets a series has at most."""
_FIXED_US = {"ms": 1_000, "s": SECOND_US, "m": MINUTE_US, "h": HOUR_US}
_CALENDAR_US = {"d": DAY_US, "w": 7 * DAY_US, "mo": 30 * DAY_US, "y": 365 * DAY_US}
"""About so long is a unit, for bounds; what a bucket is, the calendar says."""
_MEAN_US = {"mo": 30.436875 * DAY_US, "y": 365.2425 * DAY_US}
"""So long it is on the average, by the calendar's rule of leap years."""
_UNITS = {
    **{"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours"},
    **{"d": "days", "w": "weeks", "mo": "months", "y": "years"},
}
_MANY_MAX = 999_999_999
_TRIES = 3  # months are not all of one length
_EVERY = re.compile(r"([1-9]\d{0,8})(ms|s|m|h|d|w|mo|y)", re.ASCII).fullmatch
_MONDAY = date(1969, 12, 29).toordinal()
_FIRST_DAY = date(1970, 1, 1).toordinal()
_LAST_DAY = date.max.toordinal()
_UTC = ZoneInfo("UTC")


class Every(NamedTuple):
    """The width of a bucket: so many of a unit, `ms s m h` of fixed length, or `d w mo y` by the calendar of a zone.

    Weeks begin on Monday. Several days are counted from 1970, several months and years from the year 0.
    """

    many: int
    unit: str

    def __str__(self) -> str:
        return f"{self.many}{self.unit}"

    @classmethod
    def parse(cls, text: str) -> "Every":
        """Read a width.

        Raises:
            BadRange: it is none.
        """
        found = _EVERY(text)
        if found is None:
            raise BadRange(
                "`every` is a whole number and a unit, ms s m h d w mo or y, such as 500ms, 5m, 1d or 1mo; not"
                f" {text[:40]!r}"
            )
        return cls(int(found[1]), found[2])

    @property
    def about_us(self) -> int:
        """How long a bucket is; of a calendar's, about."""
        return self.many * (_FIXED_US.get(self.unit) or _CALENDAR_US[self.unit])


LADDER = tuple(
    Every.parse(text)
    for text in (
        *("1ms", "2ms", "5ms", "10ms", "20ms", "50ms", "100ms", "200ms", "500ms"),
        *("1s", "2s", "5s", "10s", "15s", "30s", "1m", "2m", "5m", "10m", "15m", "30m"),
        *("1h", "2h", "3h", "6h", "12h", "1d", "2d", "1w", "1mo", "3mo", "1y", "2y", "5y", "10y", "20y", "50y"),
        *("100y", "200y", "500y", "1000y"),
    )
)
"""The widths that the server chooses from: a rollup of seconds, minutes, hours or days divides each of them."""


def zone_of(name: str) -> tzinfo:
    """Return a time zone by its IANA name.

    Raises:
        BadRange: there is none of that name on this machine.
    """
    if name == "UTC":
        return _UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # OSError: a folder of the database, as "Europe" is
        pass
    known = "" if available_timezones() else "; this machine has no time zones: `pip install tzdata` brings them"
    raise BadRange(f"`tz` is an IANA name, such as Europe/Berlin or UTC, not {name[:64]!r}{known}")


def edges(every: Every, zone: tzinfo, from_us: int, to_us: int, buckets_max: int) -> Sequence[int]:
    """Return the starts of all buckets that have a part of [from_us, to_us), and the end of the last one.

    Returns:
        A rising sequence; a `range` where all have one width.

    Raises:
        TooMuch: they are more than `buckets_max`; it names the smallest width, in the unit that is asked for, that fits
            a range of this length, wherever that begins: `-30d` begins elsewhere by the time it is asked again.
    """
    found = _edges(every, zone, from_us, to_us, buckets_max)
    if found is None:
        hint = ""
        if (smallest := _smallest(every.unit, zone, from_us, to_us, buckets_max)) is not None:
            of_unit = f"of whole {_UNITS[smallest.unit]}"
            hint = f"; the smallest `every` {of_unit} that fits a range of this length is {smallest}"
        elif (fitting := fit(zone, from_us, to_us, buckets_max)) is not None:
            hint = f"; every={fitting} fits"
        raise TooMuch(f"a series here has at most {buckets_max} buckets, and every={every} makes more{hint}")
    return found


def _smallest(unit: str, zone: tzinfo, from_us: int, to_us: int, buckets_max: int) -> Every | None:
    """Return the smallest width, in a unit or the next one, of which any range of this length has at most so many.

    Such a range has a part of one more bucket than it is long in buckets, rounded up. None if none is found.
    """
    if buckets_max < 2:
        return None
    length_us = to_us - from_us + (DAY_US if unit in _CALENDAR_US else 0)  # a day of a zone may be shorter
    for each in list(_UNITS)[list(_UNITS).index(unit) :]:
        unit_us = _MEAN_US.get(each) or Every(1, each).about_us
        least = math.ceil(length_us / ((buckets_max - 1) * unit_us))
        if least <= (999 if each == "ms" else _MANY_MAX):
            likely = (Every(many, each) for many in range(least, least + _TRIES))
            return next((every for every in likely if _edges(every, zone, from_us, to_us, buckets_max)), None)
    return None


def fit(zone: tzinfo, from_us: int, to_us: int, buckets_max: int) -> Every | None:
    """Return the smallest width of the ladder that makes at most so many buckets; None if none does."""
    for every in LADDER:
        if _edges(every, zone, from_us, to_us, buckets_max) is not None:
            return every
    return None


def _edges(every: Every, zone: tzinfo, from_us: int, to_us: int, buckets_max: int) -> Sequence[int] | None:
    """Return the edges; None if there are too many."""
    if (to_us - from_us) // every.about_us > 2 * buckets_max:  # far more than fit: not worth counting
        return None
    if every.unit in _FIXED_US or (every.unit in {"d", "w"} and zone is _UTC):
        return _fixed(every.about_us, _offset_us(every), from_us, to_us, buckets_max)
    return _calendar(every, zone, from_us, to_us, buckets_max)


def _offset_us(every: Every) -> int:
    return (_MONDAY - _FIRST_DAY) * DAY_US if every.unit == "w" else 0


def _fixed(width_us: int, offset_us: int, from_us: int, to_us: int, buckets_max: int) -> range | None:
    start = (from_us - offset_us) // width_us * width_us + offset_us
    end = -((offset_us - to_us) // width_us) * width_us + offset_us
    return range(start, end + 1, width_us) if (end - start) // width_us <= buckets_max else None


def _calendar(every: Every, zone: tzinfo, from_us: int, to_us: int, buckets_max: int) -> tuple[int, ...] | None:
    index = _index(every, _local_date(from_us, zone))
    while (start := _start_us(every, zone, index)) > from_us:
        index -= 1
    while (after := _start_us(every, zone, index + 1)) <= from_us:
        index, start = index + 1, after
    found = [start]
    while found[-1] < to_us:
        index += 1
        start = _start_us(every, zone, index)
        if start > found[-1]:  # a day that a zone left out, as Samoa did in 2011, is no bucket
            found.append(start)
        if len(found) > buckets_max + 1:
            return None
    return tuple(found)


def _local_date(at_us: int, zone: tzinfo) -> date:
    time = datetime_of(at_us)
    try:
        return time.astimezone(zone).date()
    except OverflowError:  # in the first hours of the year 1, and the last of 9999
        return time.date()


def _index(every: Every, day: date) -> int:
    """Return the number of the bucket that has a day."""
    if every.unit == "y":
        return day.year // every.many
    if every.unit == "mo":
        return (day.year * 12 + day.month - 1) // every.many
    first, length = (_MONDAY, 7) if every.unit == "w" else (_FIRST_DAY, 1)
    return (day.toordinal() - first) // (length * every.many)


def _start_us(every: Every, zone: tzinfo, index: int) -> int:
    """Return when a bucket begins: at the first midnight of its first day, or at the end of the years 1 to 9999."""
    if every.unit in {"y", "mo"}:
        months = index * every.many * (12 if every.unit == "y" else 1)
        year, month = divmod(months, 12)
        if not 1 <= year <= 9999:
            return MIN_US if year < 1 else MAX_US + 1
        return _midnight_us(date(year, month + 1, 1), zone)
    first, length = (_MONDAY, 7) if every.unit == "w" else (_FIRST_DAY, 1)
    ordinal = first + index * length * every.many
    if not 1 <= ordinal <= _LAST_DAY:
        return MIN_US if ordinal < 1 else MAX_US + 1
    return _midnight_us(date.fromordinal(ordinal), zone)


def _midnight_us(day: date, zone: tzinfo) -> int:
    """Return the first instant of a day in a zone: where a clock leaves midnight out, the instant of that jump."""
    local = datetime(day.year, day.month, day.day, tzinfo=zone)  # of two midnights the first: fold=0 (PEP 495)
    offset = local.utcoffset() or timedelta(0)
    return us_of(local.replace(tzinfo=_UTC)) - offset // timedelta(microseconds=1)
