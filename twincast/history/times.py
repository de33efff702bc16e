"""Points in time, as text and as microseconds since 1970; before that they are negative. Years 1 to 9999.

ISO 8601 as RFC 3339 has it, always with a zone: a time without one means something else on every machine.
"""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from twincast.core.times import read_time
from twincast.errors import BadTime

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)
MIN_US = (datetime(1, 1, 1, tzinfo=UTC) - _EPOCH) // _US
MAX_US = (datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC) - _EPOCH) // _US
SECOND_US, MINUTE_US, HOUR_US, DAY_US = 1_000_000, 60_000_000, 3_600_000_000, 86_400_000_000

# Shorter than readings say it: without seconds, and an offset of hours alone. In an address, a plus that is not
# percent-encoded comes as a space: before an offset, nothing else can be meant.
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d)(:\d\d(?:[.,]\d{1,40})?)?([Zz]|[+\- ]\d\d(?::?\d\d)?)?", re.ASCII
).fullmatch
_LOOKS_LIKE_A_TIME = re.compile(r"\d{4}-\d\d-\d\d([Tt ]|\Z)", re.ASCII).match
_AGO = re.compile(r"-(\d{1,9})(s|m|h|d|w)", re.ASCII).fullmatch
_AGO_US = {"s": SECOND_US, "m": MINUTE_US, "h": HOUR_US, "d": DAY_US, "w": 7 * DAY_US}
_WANTED = "a time is ISO 8601 with a zone, such as 2026-11-25T10:00:00Z or 2026-11-25T11:00:00+01:00"


def is_time(text: str) -> bool:
    """Whether a text begins as a time does, be it one or not; a position does not."""
    return _LOOKS_LIKE_A_TIME(text) is not None


def parse_time(text: str) -> int:
    """Read a point in time.

    A second of :60, as leap seconds are written, is the first instant of the next minute. Of a fraction, six digits
    count.

    Raises:
        BadTime: it is none, or has no zone.
    """
    found = _TIME(text)
    if found is None:
        raise BadTime(f"{_WANTED}; not {text[:64]!r}")
    minute, second, zone = found.groups()
    if zone is None:
        raise BadTime(f"a time needs its zone, as in {text[:32]}Z for UTC or {text[:32]}+01:00")
    zone = zone.replace(" ", "+") if len(zone) != 3 else f"{zone.replace(' ', '+')}:00"
    return stamp_us(read_time(f"{minute}{second or ':00'}{zone}", "a time"))


def parse_moment(text: str, now_us: int) -> int:
    """Read a point in time, or one that is said from now: `now`, `-90s`, `-15m`, `-1h`, `-7d`, `-2w`.

    Raises:
        BadTime: it is none.
    """
    if text == "now":
        return now_us
    if ago := _AGO(text):
        return max(MIN_US, now_us - int(ago[1]) * _AGO_US[ago[2]])
    if not is_time(text):
        raise BadTime(f"{_WANTED}; or now, -15m, -1h, -7d; or a position, EPOCH:SEQ; not {text[:64]!r}")
    return parse_time(text)


@lru_cache(4_096)
def stamp_us(stored_utc: str) -> int:
    """Return the instant of a time in its stored form: a commit stamps all of its entries with the same text."""
    return us_of(datetime.fromisoformat(stored_utc))


def text_of(at_us: int) -> str:
    """Return a point in time as every wire writes it: ISO 8601, UTC, microseconds. Beyond the year 9999, its end."""
    return (_EPOCH + timedelta(microseconds=min(max(at_us, MIN_US), MAX_US))).isoformat(timespec="microseconds")


def datetime_of(at_us: int) -> datetime:
    """Return a point in time in UTC; beyond the years 1 to 9999, the end of them."""
    return _EPOCH + timedelta(microseconds=min(max(at_us, MIN_US), MAX_US))


def us_of(time: datetime) -> int:
    """Return the microseconds since 1970 of a time that has a zone."""
    return (time - _EPOCH) // _US
