"""Times of the log as microseconds since 1970, in SQL; and in Python what SQL does not read."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import apsw

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FORM = f"??????????T????????.{'[0-9]' * 6}+00:00"
_MICROSECOND = timedelta(microseconds=1)
_SECOND_US, _MINUTE_US, _HOUR_US = 1_000_000, 60_000_000, 3_600_000_000


def us_of(text: str) -> str:
    """Return the SQL for the microseconds of a time in the log's own form; null if it is in another one.

    What `layout.iso_of` makes of them is then that very text.
    """
    return (
        f"iif({text} glob '{_FORM}',"
        f" unixepoch(substr({text}, 1, 19)) * 1000000 + cast(substr({text}, 21, 6) as integer), null)"
    )


def time_us(text: str) -> int:
    """Return the microseconds of a time in any form of ISO 8601; 0 for what is no time."""
    try:
        time_utc = datetime.fromisoformat(text)
    except ValueError:
        return 0
    return ((time_utc if time_utc.tzinfo else time_utc.replace(tzinfo=UTC)) - _EPOCH) // _MICROSECOND


def iso(us: int) -> str:
    """Return the text of a time, as the log has times; of neighbours only the first one is new to the calendar."""
    hour, us = divmod(us, _HOUR_US)
    minute, us = divmod(us, _MINUTE_US)
    return f"{_hour(hour)}{minute:02}:{us // _SECOND_US:02}.{us % _SECOND_US:06}+00:00"


@lru_cache(4_096)
def _hour(hour: int) -> str:
    return (_EPOCH + timedelta(hours=hour)).isoformat()[: len("2026-11-28T10:")]


def add_function(db: apsw.Connection, name: str, call: Callable[[str], int | str]) -> None:
    """Let SQL on a connection call a function of one text."""

    def called(*values: object) -> int | str:
        return call(str(values[0]))

    db.create_scalar_function(name, called, 1, deterministic=True)


def add_time_us(db: apsw.Connection) -> None:
    """Let SQL on a connection call `time_us`: slow, for the few times in another form."""
    add_function(db, "time_us", time_us)
