"""Times as they are stored: ISO 8601 in UTC, to the microsecond. An instant has one text; texts compare as times."""

import re
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache

from twincast.errors import BadTime

_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:[.,](\d+))?(?:[Zz]|([+-])(\d\d):?(\d\d))", re.ASCII
).fullmatch
# What every version of Python reads alike, as most clients write it: no leap second, no digits to cut.
_COMMON_TIME = re.compile(
    r"\d{4}-\d\d-\d\dT(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.(?:\d{3}|\d{6}))?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)",
    re.ASCII,
).fullmatch
_SHOWN_MAX_CHARS = 64
_NORMAL_CHARS, _UTC = len("2026-11-27T04:16:10.123456+00:00"), "+00:00"
_SECONDS_MAX, _LEAP_SECOND = 59, 60
_HOUR_MAX, _MINUTE_MAX = 23, 59


def read_time(text: str, what: str) -> str:
    """Return the stored form of a time that came in: ISO 8601 with a date, a time and a zone.

    Digits beyond the microsecond are cut. A second of :60, which a leap second has, is the first instant of the next
    minute.

    Args:
        text: the time.
        what: the subject of the error's sentence.

    Raises:
        BadTime: it is none, has no zone, or is outside of the years 1 to 9999.
    """
    if _COMMON_TIME(text) is not None:
        try:
            time = datetime.fromisoformat(text)
            return text if _is_stored_form(text) else stored_form(time)
        except (ValueError, OverflowError):
            pass  # the rest says what is wrong
    return _read_any_time(text, what)


def _read_any_time(text: str, what: str) -> str:
    """Do what `read_time` does, in more time."""
    found = _TIME(text)
    if found is None:
        raise BadTime(
            f"{what} must be a date and a time with its zone, such as 2026-11-27T04:16:10.25Z,"
            f" not {text[:_SHOWN_MAX_CHARS]!r}"
        )
    *parts, fraction, sign, hours, minutes = found.groups()
    year, month, day, hour, minute, second = map(int, parts)
    try:
        offset = timedelta(hours=_at_most(hours, _HOUR_MAX, "hours"), minutes=_at_most(minutes, _MINUTE_MAX, "minutes"))
        time = datetime(year, month, day, hour, minute, min(second, _SECONDS_MAX), tzinfo=_zone(sign, offset))
        if second == _LEAP_SECOND:
            time += timedelta(seconds=1)
        elif second > _LEAP_SECOND:
            raise ValueError("second must be in 0..59")
        else:
            time = time.replace(microsecond=int((fraction or "")[:6].ljust(6, "0")))
        return stored_form(time)
    except (ValueError, OverflowError) as error:
        raise BadTime(f"{what} is no time that can be, {text[:_SHOWN_MAX_CHARS]!r}: {error}") from None


def stored_form(time: datetime) -> str:
    """Return a time that has a zone as it is stored. Raises OverflowError outside of the years 1 to 9999."""
    return time.astimezone(UTC).isoformat(timespec="microseconds")


def comparable(stored_utc: str) -> str:
    """Return the time of an entry such that texts compare as times.

    Those that this program wrote are so already. Another program may have written others into a log; what is no time
    comes back empty, which is before all times.
    """
    if _is_stored_form(stored_utc):
        return stored_utc
    return _made_comparable(stored_utc)


@lru_cache(maxsize=64)
def time_after(stored_utc: str, seconds: float) -> str:
    """Return the time so many seconds after another one, at most the last one that there is; of no time, no time."""
    time = comparable(stored_utc)
    if not time:
        return time
    try:
        return stored_form(datetime.fromisoformat(time) + timedelta(seconds=seconds))
    except OverflowError:
        return stored_form(datetime.max.replace(tzinfo=UTC))


def _is_stored_form(text: str) -> bool:
    return len(text) == _NORMAL_CHARS and text.endswith(_UTC)


@lru_cache(maxsize=1_024)
def _made_comparable(text: str) -> str:
    try:
        time = datetime.fromisoformat(text)
        return stored_form(time if time.tzinfo else time.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        return ""


def _zone(sign: str | None, offset: timedelta) -> timezone:
    return timezone(-offset if sign == "-" else offset)


def _at_most(text: str | None, maximum: int, what: str) -> int:
    """Return a number of a zone, 0 if it is not there."""
    number = int(text or 0)
    if number > maximum:
        raise ValueError(f"the {what} of a zone must be in 0..{maximum}")
    return number
