"""A server's history, asked for and read: what is sent, page by page, and what a program gets of it.

No socket: the clients fetch what `asking` yields, with and without asyncio.
"""

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypedDict
from urllib.parse import urlencode

from twincast.client import frames
from twincast.client.encoding import checked
from twincast.client.events import Twin
from twincast.client.message import Message
from twincast.core.model import Position
from twincast.core.names import listed
from twincast.errors import ValidationFailed

PAGE_MAX = 10_000
"""How many entries the server returns at once."""
Moment = str | datetime | Position
"""A time: ISO 8601 with a zone, a datetime that has one, `now`, `-1h`; or a position."""
_TWIN_PARTS = tuple(part.name for part in fields(Twin))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_AGGREGATES = ("avg", "min", "max", "sum", "count", "first", "last", "p50", "p95", "min_t", "max_t")
_DEFAULT_AGGREGATES = ("avg", "min", "max")
_ENTRY_COLUMNS = ("device_id", "seq", "time", "stored_time", "source", "value", "number")


class PastEntry(NamedTuple):
    """One entry of a device's history: a reading, unless `kind` says something else."""

    device_id: str
    seq: int
    timestamp_utc: str
    """When it was stored."""
    source: str
    value: Any = None
    """Of a reading; of the paths that were asked for, their values."""
    measured_at_utc: str | None = None
    is_late: bool = False
    """Whether it came behind readings of a later time."""
    is_clock_off: bool = False
    """Whether it says a time that it cannot have been measured at, and that does not count."""
    kind: str = "data_update"
    """Or "control" or "deleted"."""
    command: str = ""
    args: Mapping[str, Any] | None = None
    scope: str | None = None
    """Of a deletion: "history" if what the log had of the device was deleted as well."""

    @property
    def at_utc(self) -> str:
        """The time that counts: when it was measured, where that is believed, else when it was stored."""
        return self.timestamp_utc if self.measured_at_utc is None or self.is_clock_off else self.measured_at_utc


@dataclass(frozen=True, slots=True)
class Buckets:
    """The buckets of one device and path, by columns; see docs/history.md."""

    device_id: str
    path: str
    time_ms: Sequence[int]
    """When each bucket begins, in milliseconds since 1970."""
    columns: Mapping[str, Sequence[Any]]
    """By the name of the aggregate, each as long as `time_ms`."""

    def __getitem__(self, aggregate: str) -> Sequence[Any]:
        return self.columns[aggregate]

    def __len__(self) -> int:
        return len(self.time_ms)


@dataclass(frozen=True, slots=True)
class History:
    """The past of one device, or of several: entries, or buckets."""

    position: Position
    """Up to where everything is in it: what came after that comes with `since`."""
    reaches_back_to: str | None
    """The time from which on the log lacks nothing: when the first of those entries was stored; None if it has none."""
    entries: Sequence[PastEntry] = ()
    series: Sequence[Buckets] = ()
    """If buckets were asked for, those of each device and path."""
    every: str = ""
    """The width of the buckets."""
    is_open: bool = False
    """Whether the last bucket has not ended yet."""
    has_more: bool = False
    """Whether there are more entries than were asked for."""
    aggregates: Sequence[str] = field(default=(), repr=False)

    def rows(self) -> tuple[Sequence[str], list[tuple[Any, ...]]]:
        """Return the names of columns, and a row for each entry or bucket; times are datetimes in UTC."""
        if self.series or self.every:
            names = ("device_id", "path", "time", *self.aggregates)
            cells = (
                (
                    each.device_id,
                    each.path,
                    _time_of(time_ms),
                    *(_cell(name, each[name][row]) for name in self.aggregates),
                )
                for each in self.series
                for row, time_ms in enumerate(each.time_ms)
            )
            return names, list(cells)
        return _ENTRY_COLUMNS, [_row_of(entry) for entry in self.entries]

    def to_pandas(self) -> Any:
        """Return a pandas DataFrame of `rows`. Raises ExtraMissing if pandas is not installed."""
        return frames.pandas_frame(frames.columns_of(*self.rows()))

    def to_polars(self) -> Any:
        """Return a polars DataFrame of `rows`. Raises ExtraMissing if polars is not installed."""
        return frames.polars_frame(frames.columns_of(*self.rows()))


class StateAt(NamedTuple):
    """The state as it was."""

    position: Position
    """The last entry that it has."""
    state: Mapping[str, Twin]
    """Each device's twin."""


class Question(TypedDict, total=False):
    """What is asked, beside the device; docs/history.md says what each means."""

    devices: str | Iterable[str]
    """Patterns, or one of them, instead of one device."""
    from_: Moment
    to: Moment
    path: str | Iterable[str]
    time: str
    limit: int | None
    """How many entries of each device; None for all. More than a page are fetched page by page."""
    order: str
    kinds: str | Iterable[str]
    every: str
    points: int
    agg: str | Iterable[str]
    fill: str
    tz: str


_KNOWN = frozenset(Question.__annotations__)


def asking(device_id: str | None, question: Question) -> Generator[str, Message, History]:
    """Yield the addresses to get, one after another, take the answer to each, and return what they say.

    Raises:
        ValidationFailed: there is no device, or more than one way to name some; a time has no zone, or is none; or
            `limit` goes with buckets.
        TypeError: there is no such parameter.
    """
    if unknown := sorted(set(question) - _KNOWN):
        raise TypeError(f"history() has no parameter {unknown[0]!r}; it has {', '.join(sorted(_KNOWN))}")
    patterns = list(listed(question.get("devices", ())))
    if (device_id is None) == (not patterns):
        raise ValidationFailed("history is of one device, or of `devices`, which are patterns")
    where: list[tuple[str, Any]] = [("devices", each) for each in patterns]
    if device_id is not None:
        where = [("device_id", checked(device_id, "`device_id`"))]
    asked = _parameters(question)
    if _is_of_buckets(question):
        return _buckets_of((yield _path([*where, *asked])), _aggregates(question))
    limit = question.get("limit", 1_000)
    answer = yield _path([*where, *asked, ("limit", _page_size(limit, 0))])
    entries: list[PastEntry] = []
    has_more = False
    for each in answer.get("devices", [answer]):
        name, cursor = each["device_id"], each.get("cursor")
        found = [_entry_of(name, entry) for entry in each["entries"]]
        while cursor is not None and (limit is None or len(found) < limit):
            size = ("limit", _page_size(limit, len(found)))
            more = yield _path([("device_id", name), *asked, size, ("cursor", cursor)])
            found += [_entry_of(name, entry) for entry in more["entries"]]
            cursor = more.get("cursor")
        has_more |= cursor is not None
        entries += found
    return History(position_of(answer), answer["reaches_back_to"], entries, has_more=has_more)


def _parameters(question: Question) -> list[tuple[str, Any]]:
    """Return the parameters of all pages."""
    return [
        *(("path", each) for each in listed(question.get("path", ()))),
        *((name.rstrip("_"), moment_text(question[name])) for name in ("from_", "to") if name in question),
        *(("kinds", each) for each in listed(question.get("kinds", ()))),
        *(("agg", each) for each in listed(question.get("agg", ()))),
        *((name, question[name]) for name in ("time", "order", "every", "points", "fill", "tz") if name in question),
    ]


def _is_of_buckets(question: Question) -> bool:
    """Whether buckets are asked for.

    Raises:
        ValidationFailed: how many entries there may be is said too, which would be left out silently.
    """
    if "every" not in question and "points" not in question:
        return False
    if question.get("limit") is not None:
        raise ValidationFailed("`limit` is of entries; with `every` or `points`, buckets are asked for")
    return True


def _page_size(limit: int | None, have: int) -> int:
    return PAGE_MAX if limit is None else min(limit - have, PAGE_MAX)


def export_paths(device_id: str, format_name: str, question: Question) -> Generator[str, str | None, None]:
    """Yield the addresses of a device's history as lines, page by page; take the cursor of each page, None at the end.

    Raises:
        ValidationFailed: see `asking`.
    """
    asked = [("device_id", checked(device_id, "`device_id`")), *_parameters(question), ("format", format_name)]
    if _is_of_buckets(question):
        yield _path(asked)
        return
    limit = question.get("limit", 1_000)
    page: list[tuple[str, Any]] = [("limit", PAGE_MAX if limit is None else min(limit, PAGE_MAX))]
    cursor = yield _path([*asked, *page])
    have = page[0][1]
    while cursor is not None and (limit is None or have < limit):
        size = _page_size(limit, have)
        have += size
        cursor = yield _path([*asked, ("limit", size), ("cursor", cursor)])


def asking_state(at: Moment, devices: Iterable[str]) -> Generator[str, Message, StateAt]:
    """Yield the address of a state as it was, take the answer, and return what it says."""
    answer = yield f"/api/data?{urlencode([('at', moment_text(at)), *(('devices', each) for each in devices)])}"
    twins = {
        name: Twin(**{part: said[part] for part in _TWIN_PARTS if part in said})
        for name, said in answer["data"].items()
    }
    return StateAt(position_of(answer), twins)


def position_of(answer: Message) -> Position:
    """Return the position of an answer."""
    return Position(answer["epoch"], answer["seq"])


def moment_text(moment: Moment) -> str:
    """Return a time or a position as addresses have it.

    Raises:
        ValidationFailed: a datetime has no zone: its time is another one on every machine; or it is neither.
    """
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            raise ValidationFailed("a datetime needs its zone, such as datetime.now(UTC)")
        return moment.isoformat()
    if not isinstance(moment, str | Position):
        raise ValidationFailed(
            "a time is a datetime with its zone, a text such as '2026-11-25T10:00:00Z', 'now' or '-1h', or a Position;"
            f" not {_shown(moment)}"
        )
    return str(moment)


def _shown(given: object) -> str:
    return f"{type(given).__name__} {str(given)[:40]!r}"


def _path(query: Sequence[tuple[str, Any]]) -> str:
    return f"/api/history?{urlencode(query)}"


def _entry_of(device_id: str, said: Message) -> PastEntry:
    return PastEntry(
        *(device_id, said["seq"], said["timestamp_utc"], said["source"], said.get("value")),
        measured_at_utc=said.get("measured_at_utc"),
        is_late=said.get("late", False),
        is_clock_off=said.get("clock") == "off",
        kind=said.get("type", "data_update"),
        command=said.get("command", ""),
        args=said.get("args"),
        scope=said.get("scope"),
    )


def _aggregates(question: Question) -> tuple[str, ...]:
    """Return what was asked for, each once, as the server reads it."""
    names = dict.fromkeys(name for each in listed(question.get("agg", ())) for name in each.split(",") if name)
    return tuple(names) or _DEFAULT_AGGREGATES


def _buckets_of(answer: Message, aggregates: tuple[str, ...]) -> History:
    series = [
        Buckets(
            *(said["device_id"], said["path"], said["time_ms"]),
            {name: said[name] for name in _AGGREGATES if name in said},
        )
        for said in answer.get("series", [answer] if "time_ms" in answer else [])
    ]
    return History(
        *(position_of(answer), answer["reaches_back_to"]),
        series=series,
        every=answer["every"],
        is_open=answer["open"],
        aggregates=aggregates,
    )


def _row_of(entry: PastEntry) -> tuple[Any, ...]:
    is_number = isinstance(entry.value, int | float) and not isinstance(entry.value, bool)
    return (
        *(
            entry.device_id,
            entry.seq,
            datetime.fromisoformat(entry.at_utc),
            datetime.fromisoformat(entry.timestamp_utc),
        ),
        *(entry.source, entry.value, float(entry.value) if is_number else None),
    )


def _cell(aggregate: str, cell: Any) -> Any:
    return _time_of(cell) if aggregate in {"min_t", "max_t"} and cell is not None else cell


def _time_of(time_ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=time_ms)
