"""The answers once more, as plainly as they can be found: over a list of entries, with a calendar of its own.

Nothing here is shared with twincast/history but the shapes of questions, so a mistake there is not repeated here.
"""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

from twincast.core.model import DataUpdate, Deleted, Entry
from twincast.history.query import BucketsQuery, EntriesQuery

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def micros(text: str) -> int:
    return (datetime.fromisoformat(text) - EPOCH) // timedelta(microseconds=1)


def moment(entry: Entry, *, by_stored: bool) -> tuple[int, int]:
    stored = micros(entry.timestamp_utc)
    claimed = getattr(entry, "measured_at_utc", None)
    if by_stored or not isinstance(claimed, str):
        return stored, entry.seq
    measured = micros(claimed)
    return (measured if measured - stored <= 60_000_000 else stored), entry.seq


def at_path(value: bytes, pointer: str) -> tuple[bool, Any]:
    """Return whether there is something at a path, and what; numbers as they were written."""
    found = json.loads(value, parse_int=_Written, parse_float=_Written)
    for token in pointer.split("/")[1:]:
        name = token.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and name in found:
            found = found[name]
        elif isinstance(found, list) and name.isdigit() and str(int(name)) == name and int(name) < len(found):
            found = found[int(name)]
        else:
            return False, None
    return True, found


class _Written(str):
    """A number, as it was written."""

    @property
    def number(self) -> int | float:
        is_whole = self.lstrip("-").isdigit() and -(2**63) <= int(self) < 2**63
        return int(self) if is_whole else float(self)


def pages(log: Sequence[Entry], query: EntriesQuery) -> list[tuple[str, list[int], bool]]:
    """Return the device, the seqs and whether there is more, of each page."""
    answer = []
    for name in query.devices:
        found = []
        for entry in log:
            place = moment(entry, by_stored=query.by_stored)
            if entry.subject != name or entry.kind not in query.kinds:
                continue
            if not query.after_seq < entry.seq <= query.until_seq or not query.from_us <= place[0] < query.to_us:
                continue
            is_reading = entry.kind in {"data_update", "late"}
            if (
                is_reading
                and query.paths
                and not any(at_path(bytes(entry.payload), path.text)[0] for path in query.paths)
            ):
                continue
            if query.beyond is None or (place < query.beyond if query.is_descending else place > query.beyond):
                found.append((place, entry.seq))
        found.sort(reverse=query.is_descending)
        answer.append((name, [seq for _, seq in found[: query.limit]], len(found) > query.limit))
    return answer


def series(log: Sequence[Entry], query: BucketsQuery) -> list[tuple[str, str, list[int], list[list[Any]]]]:
    """Return the device, the path, the starts and the columns of each series."""
    answer = []
    for name in query.devices:
        for path in query.paths:
            rows = []
            for start, end in zip(query.edges, query.edges[1:], strict=False):
                there = [
                    (moment(entry, by_stored=query.by_stored), at_path(bytes(entry.payload), path.text)[1])
                    for entry in log
                    if entry.subject == name
                    and entry.kind in {"data_update", "late"}
                    and entry.seq <= query.until_seq
                    and start <= moment(entry, by_stored=query.by_stored)[0] < end
                    and at_path(bytes(entry.payload), path.text)[0]
                ]
                row = [aggregated(sorted(there, key=lambda each: each[0]), each) for each in query.aggregates]
                has_texts = not {"first", "last"}.isdisjoint(query.aggregates)
                if any(isinstance(value, _Written) for _, value in there) or (has_texts and there):
                    rows.append((start, row))
            columns = [[row[index] for _, row in rows] for index in range(len(query.aggregates))]
            answer.append((name, path.text, [start for start, _ in rows], columns))
    return answer


def aggregated(there: list[tuple[tuple[int, int], Any]], name: str) -> Any:
    numbers = [value.number for _, value in there if isinstance(value, _Written)]
    if name == "count":
        return len(numbers)
    if name in {"first", "last"}:
        return plain(there[0 if name == "first" else -1][1]) if there else None
    if not numbers:
        return None
    exact = sorted(Fraction(float(number)) for number in numbers)
    whens = {
        extreme: [at for (at, _), value in there if isinstance(value, _Written) and value.number == extreme]
        for extreme in (min(numbers), max(numbers))
    }
    by_name: dict[str, Callable[[], int | float]] = {
        "min": lambda: min(numbers),
        "max": lambda: max(numbers),
        "sum": lambda: float(sum(exact)),
        "avg": lambda: float(sum(exact) / len(exact)),
        "min_t": lambda: math.floor(Fraction(whens[min(numbers)][0], 1_000)),
        "max_t": lambda: math.floor(Fraction(whens[max(numbers)][0], 1_000)),
        "p50": lambda: float(_between(exact, Fraction(1, 2))),
        "p95": lambda: float(_between(exact, Fraction(19, 20))),
    }
    return by_name[name]()


def _between(ordered: list[Fraction], share: Fraction) -> Fraction:
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def plain(value: Any) -> Any:
    """Return a value with its numbers read, to be compared."""
    if isinstance(value, _Written):
        return value.number
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list) else value


def position(log: Iterable[Entry], at_us: int) -> int:
    return max((entry.seq for entry in log if micros(entry.timestamp_utc) <= at_us), default=0)


def state(log: Iterable[Entry], seq: int) -> dict[str, tuple[bytes, int]]:
    """Return the value of each device, and the seq that it came with."""
    twins: dict[str, tuple[bytes, int]] = {}
    for entry in log:
        if entry.seq > seq:
            break
        if isinstance(entry, DataUpdate):
            twins[entry.device_id] = (bytes(entry.value), entry.seq)
        elif isinstance(entry, Deleted):
            twins.pop(entry.device_id, None)
    return twins


def period(at_us: int, unit: str, zone: str) -> tuple[int, int]:
    """Return the day, week, month or year that an instant is in, as a range in microseconds, minute by minute.

    What a clock on the wall shows is looked up; the first instant of a period is the first at which it shows its date.
    """
    first = _first_day(_shown(at_us, zone), unit)
    return _first_instant(first, zone), _first_instant(_next_first_day(first, unit), zone)


def _shown(at_us: int, zone: str) -> date:
    return (EPOCH + timedelta(microseconds=at_us)).astimezone(ZoneInfo(zone)).date()


def _first_day(day: date, unit: str) -> date:
    if unit == "w":
        return day - timedelta(days=day.weekday())
    return {"d": day, "mo": day.replace(day=1), "y": day.replace(month=1, day=1)}[unit]


def _next_first_day(first: date, unit: str) -> date:
    if unit == "y":
        return first.replace(year=first.year + 1)
    if unit == "mo":
        return (first + timedelta(days=31)).replace(day=1)
    return first + timedelta(days=7 if unit == "w" else 1)


def _first_instant(day: date, zone: str) -> int:
    """Return the first minute at which a clock shows this date, or a later one."""
    minute = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(hours=26)
    while minute.astimezone(ZoneInfo(zone)).date() < day:
        minute += timedelta(minutes=1)
    return (minute - EPOCH) // timedelta(microseconds=1)
