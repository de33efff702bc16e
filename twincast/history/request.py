"""What a client asks of the past, by the parameters of an address: read and checked, and then resolved to a query."""

from collections.abc import Collection, Mapping, Sequence
from datetime import tzinfo
from typing import Literal, NamedTuple, cast, get_args

from twincast.core.model import Kind, Position
from twincast.errors import BadPath, BadRange, UnknownAggregate, ValidationFailed
from twincast.history.cursor import Cursor, digest_of
from twincast.history.fill import FILLS, Fill
from twincast.history.pointer import Pointer
from twincast.history.query import AGGREGATES, ENTRIES_MAX, READINGS, SEQ_MAX, Aggregate, BucketsQuery, EntriesQuery
from twincast.history.times import DAY_US, MAX_US, MIN_US, is_time, parse_moment
from twincast.history.widths import BUCKETS_MAX, Every, edges, fit, zone_of

Format = Literal["json", "csv", "ndjson"]
FORMATS: tuple[Format, ...] = get_args(Format)
KINDS: tuple[Kind, ...] = ("data_update", "late", "control", "deleted")
"""The kinds of entries that may be asked for."""
LIMIT_MAX, LIMIT_DEFAULT = 10_000, 1_000
POINTS_MIN = 2
PATHS_MAX = 16
DEFAULT_AGGREGATES: tuple[Aggregate, ...] = ("avg", "min", "max")
_OF_BUCKETS = ("agg", "fill", "tz")
_OF_ENTRIES = ("order", "limit", "cursor", "kinds")
PARAMETERS = frozenset({"from", "to", "path", "time", "every", "points", "format", *_OF_BUCKETS, *_OF_ENTRIES})
"""Of every call for history, beside those that name devices."""

Given = Mapping[str, Sequence[str]]
"""The parameters of an address, by name, decoded."""
Bound = int | Position
"""An end of a range: a time in microseconds since 1970, or a position, which stands behind its entry."""


class Span(NamedTuple):
    """What is asked for, once positions are known to be of this log."""

    from_us: int
    to_us: int
    after_seq: int
    until_seq: int


class Buckets(NamedTuple):
    """How readings are added up."""

    every: Every | None
    points: int | None
    """If no width is given: at most so many buckets."""
    aggregates: tuple[Aggregate, ...]
    fill: Fill
    tz: str
    zone: tzinfo


class Asked(NamedTuple):
    """A request, checked. Its range is as it was given: `now` has become a time."""

    since: Bound | None
    until: Bound | None
    paths: tuple[Pointer, ...]
    by_stored: bool
    buckets: Buckets | None
    """None: entries are asked for."""
    is_descending: bool
    limit: int
    kinds: frozenset[Kind]
    cursor: str
    """Empty for the first page."""
    format: Format | None
    """None: as the request's Accept header says."""
    identity: bytes
    """What tells it from other requests, but for its page."""

    def digest(self, device_id: str, log: str) -> bytes:
        """Return what ties the cursors of a device's pages to this request and to its log."""
        return digest_of(device_id, log, self.identity)

    def entries(self, devices: tuple[str, ...], span: Span) -> EntriesQuery:
        """Return the query for the first page of entries of some devices."""
        return EntriesQuery(
            *(devices, self.kinds, *span),
            by_stored=self.by_stored,
            paths=self.paths,
            is_descending=self.is_descending,
            limit=self.limit,
        )

    def page(self, device_id: str, log: str) -> EntriesQuery:
        """Return the query for the page that the cursor leads to. Raises BadCursor if it is of another request."""
        cursor = Cursor.parse(self.cursor, self.digest(device_id, log))
        span = Span(cursor.from_us, cursor.to_us, cursor.after_seq, cursor.until_seq)
        return self.entries((device_id,), span)._replace(beyond=cursor.place)

    def added_up(self, devices: tuple[str, ...], span: Span, buckets: Buckets) -> tuple[Every, BucketsQuery]:
        """Return the query for buckets of some devices, and their width.

        Raises:
            TooMuch: they are more than an answer holds; it names the smallest width that fits.
        """
        paths = self.paths or (Pointer(""),)
        buckets_max = min(BUCKETS_MAX, ENTRIES_MAX // max(1, len(devices) * len(paths)))
        every = buckets.every
        if every is None:
            assert buckets.points is not None
            every = fit(buckets.zone, span.from_us, span.to_us, min(buckets.points, buckets_max)) or Every(1_000, "y")
        bounds = edges(every, buckets.zone, span.from_us, span.to_us, buckets_max)
        if span.from_us == span.to_us:  # nothing is asked for: not the whole bucket around it
            bounds = bounds[:1]
        return every, BucketsQuery(devices, paths, bounds, buckets.aggregates, span.until_seq, self.by_stored)


def parse_request(given: Given, now_us: int) -> Asked:
    """Read the parameters that all calls for history have.

    Args:
        given: the parameters; others than these are the caller's.
        now_us: what `now` means.

    Raises:
        BadTime: an end of the range is neither a time nor a position.
        BadRange: the range is turned round, or begins at a position, which cannot bound these buckets;
            or they cannot be so wide or so many.
        BadPath: a path is no JSON Pointer, or they are too many.
        UnknownAggregate: there is no such aggregate.
        ValidationFailed: another parameter is not what it must be, or does not go with the others.
    """
    buckets = _buckets(given)
    _check_company(given, has_buckets=buckets is not None)
    since, until = _bound(given, "from", now_us), _bound(given, "to", now_us)
    if type(since) is type(until) and since is not None and _order(since) > _order(cast("Bound", until)):
        raise BadRange("`from` is later than `to`")
    by_stored = _one_of(given, "time", ("measured", "stored"), "measured") == "stored"
    if buckets is not None and isinstance(since, Position) and not by_stored:
        raise BadRange(
            "buckets go by when readings were measured, and what is stored behind a position may be of any time:"
            " `from` must be a time, or the buckets go by `time=stored`"
        )
    return Asked(
        since=since,
        until=until,
        paths=_paths(given),
        by_stored=by_stored,
        buckets=buckets,
        is_descending=_one_of(given, "order", ("desc", "asc"), "desc") == "desc",
        limit=_number(given, "limit", 1, LIMIT_MAX, LIMIT_DEFAULT),
        kinds=_kinds(given),
        cursor=_last(given, "cursor"),
        format=_format(given),
        identity=digest_of(*(tuple(given.get(name, ())) for name in ("from", "to", "path", "time", "order", "kinds"))),
    )


def parse_bound(text: str, now_us: int) -> Bound:
    """Read a time, one that is said from now, or a position.

    Raises:
        BadTime: it is none of them.
    """
    if not is_time(text):
        head, colon, seq = text.rpartition(":")
        if head and colon and seq.isascii() and seq.isdigit() and len(seq) < 19:
            return Position(head, int(seq))
    return parse_moment(text, now_us)


def _order(bound: Bound) -> int:
    return bound.seq if isinstance(bound, Position) else bound


def _bound(given: Given, name: str, now_us: int) -> Bound | None:
    text = _last(given, name)
    return parse_bound(text, now_us) if text else None


def _buckets(given: Given) -> Buckets | None:
    if "every" in given and "points" in given:
        raise BadRange("`every` says how wide buckets are, `points` how many at most; a request has one of them")
    if "every" not in given and "points" not in given:
        return None
    tz = _last(given, "tz") or "UTC"
    return Buckets(
        every=Every.parse(_last(given, "every")) if "every" in given else None,
        points=_points(_last(given, "points")) if "points" in given else None,
        aggregates=_aggregates(given),
        fill=cast("Fill", _one_of(given, "fill", FILLS, "none")),
        tz=tz,
        zone=zone_of(tz),
    )


def _points(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and POINTS_MIN <= int(text) <= BUCKETS_MAX):
        raise BadRange(f"`points` must be a whole number from {POINTS_MIN} to {BUCKETS_MAX}, not {text[:40]!r}")
    return int(text)


def _check_company(given: Given, *, has_buckets: bool) -> None:
    """Refuse what would be left out silently. Raises ValidationFailed."""
    if has_buckets:
        if alone := [name for name in _OF_ENTRIES if name in given]:
            raise ValidationFailed(f"`{alone[0]}` is of entries; with `every` or `points`, buckets are asked for")
    elif alone := [name for name in _OF_BUCKETS if name in given]:
        raise ValidationFailed(f"`{alone[0]}` is of buckets: it goes with `every` or `points`")


def _aggregates(given: Given) -> tuple[Aggregate, ...]:
    names = _split(given, "agg")
    if not names:
        return DEFAULT_AGGREGATES
    if unknown := [name for name in names if name not in AGGREGATES]:
        raise UnknownAggregate(f"the aggregates are {', '.join(AGGREGATES)}; not {unknown[0][:40]!r}")
    return cast("tuple[Aggregate, ...]", tuple(dict.fromkeys(names)))


def _kinds(given: Given) -> frozenset[Kind]:
    names = _split(given, "kinds") or READINGS
    if unknown := [name for name in names if name not in KINDS]:
        raise ValidationFailed(f"`kinds` are {', '.join(KINDS)}; not {unknown[0][:40]!r}")
    return frozenset(cast("Sequence[Kind]", names))


def _paths(given: Given) -> tuple[Pointer, ...]:
    texts = tuple(dict.fromkeys(given.get("path", ())))
    if len(texts) > PATHS_MAX:
        raise BadPath(f"a request may have {PATHS_MAX} paths; this one has {len(texts)}")
    return tuple(map(Pointer, texts))


def _format(given: Given) -> Format | None:
    text = _last(given, "format")
    if text == "parquet":
        raise ValidationFailed("this server does not answer as Parquet yet; `format` is json, csv or ndjson")
    return cast("Format", _one_of(given, "format", FORMATS, "json")) if text else None


def _split(given: Given, name: str) -> list[str]:
    return [part for text in given.get(name, ()) for part in text.split(",") if part]


def _last(given: Given, name: str) -> str:
    return given.get(name, ("",))[-1]


def _one_of(given: Given, name: str, known: Collection[str], default: str) -> str:
    text = given.get(name, (default,))[-1]
    if text not in known:
        raise ValidationFailed(f"`{name}` is {' or '.join(known)}, not {text[:40]!r}")
    return text


def _number(given: Given, name: str, minimum: int, maximum: int, default: int) -> int:
    text = given.get(name, (str(default),))[-1]
    if not (text.isascii() and text.isdigit() and len(text) < 10 and minimum <= int(text) <= maximum):
        raise ValidationFailed(f"`{name}` must be a whole number from {minimum} to {maximum}, not {text[:40]!r}")
    return int(text)


def default_span(asked: Asked, now_us: int, head_seq: int) -> Span:
    """Return the range of a request whose ends are times, or not given: everything, or for buckets the last 24 hours.

    An end that is a position counts as not given.
    """
    since, until = asked.since, asked.until
    to_us = until if isinstance(until, int) else MAX_US + 1
    from_us = since if isinstance(since, int) else MIN_US
    if asked.buckets is not None:
        to_us = until if isinstance(until, int) else now_us
        from_us = since if isinstance(since, int) else max(MIN_US, to_us - DAY_US)
    return Span(from_us, to_us, 0, min(head_seq, SEQ_MAX))
