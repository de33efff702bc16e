"""REST: the log's past, as entries or added up by buckets of time."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from msgspec import UNSET

from twincast.core.model import Entry, Position
from twincast.core.names import check_id
from twincast.core.subscription import subscription_to
from twincast.errors import BadCursor, BadRange, Truncated, ValidationFailed
from twincast.history import answers, lines
from twincast.history.cursor import Cursor
from twincast.history.fill import filled
from twincast.history.moments import place_of, stored_us
from twincast.history.query import READINGS, BucketsQuery, EntriesPage, EntriesQuery, Series
from twincast.history.request import PARAMETERS, Asked, Buckets, Format, Span, default_span, parse_request
from twincast.history.times import DAY_US, MAX_US, text_of
from twincast.history.widths import Every
from twincast.transports.answer import CSV, JSON, NDJSON, Answer, metered, whole_if_small
from twincast.transports.documents import history as documented
from twincast.transports.documents import parameters
from twincast.transports.operation import Call, Operation
from twincast.transports.parts import Parts
from twincast.transports.rest.asking import Asking, no_such_device
from twincast.wire.accept import preferred
from twincast.wire.messages import encode
from twincast.wire.query import decode_query, rules_of_query

_TYPES: dict[str, Format] = {JSON: "json", CSV: "csv", NDJSON: "ndjson", "application/jsonl": "ndjson"}
_CONTENT_TYPES: dict[Format, bytes] = {"csv": b"text/csv; charset=utf-8", "ndjson": NDJSON.encode()}
_POSITION, _CURSOR = b"twincast-position", b"twincast-cursor"
_ONE = (answers.HistoryEntries, answers.HistoryBuckets, answers.ManyHistoryBuckets)
_PARTS = (answers.HistoryEntry, answers.DeviceEntries, answers.Columns)


def operations(parts: Parts) -> tuple[Operation, ...]:
    """Return the calls for history."""
    past = _Past(parts)
    shared = documented.PARAMETERS
    return (
        Operation(
            "GET",
            "/api/data/{device_id}/history",
            past.device_history,
            _ONE,
            body_shapes=_PARTS,
            parameters=(parameters.DEVICE_IN_PATH, *shared),
            other_types=(CSV, NDJSON),
        ),
        Operation(
            "GET",
            "/api/history",
            past.history,
            (*_ONE, answers.ManyHistoryEntries),
            body_shapes=_PARTS,
            parameters=(documented.DEVICE_ID, parameters.DEVICES, *shared),
            other_types=(CSV, NDJSON),
        ),
    )


class _Found(NamedTuple):
    """What all answers say beside what was found."""

    epoch: str
    seq: int
    reaches_back_to: str | None

    @property
    def position(self) -> bytes:
        return f"{self.epoch}:{self.seq}".encode()


class _Request(NamedTuple):
    """One request, checked."""

    asking: Asking
    asked: Asked
    format: Format
    takes_gzip: bool

    @classmethod
    def read(cls, call: Call, asking: Asking, given: dict[str, list[str]]) -> "_Request":
        asked = parse_request(given, asking.now_us)
        return cls(asking, asked, asked.format or _TYPES[preferred(call.accepts, tuple(_TYPES))], call.takes_gzip)

    def answer(self, pieces: Iterator[bytes], found: _Found, cursor: str = "") -> Answer:
        headers = ((_POSITION, found.position), *(((_CURSOR, cursor.encode()),) if cursor else ()))
        body = whole_if_small(metered(pieces, self.asking.budget, is_compressed=self.takes_gzip))
        return Answer(body, headers, content_type=_CONTENT_TYPES.get(self.format, JSON.encode()))

    def lines(self, entries: Sequence[Entry]) -> Iterator[bytes]:
        if self.format == "csv":
            return lines.entries_csv(entries, self.asked.paths, has_marks=not self.asked.kinds <= set(READINGS))
        return lines.entries_ndjson(entries, self.asked.paths)


class _Past:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def device_history(self, call: Call) -> Answer:
        """Return a device's past: its readings, or their averages, extremes and more by buckets of time.

        Without `every` and `points`, entries are returned, the newest first, page by page. With one of them, buckets
        by columns, as charts want them. The answer holds everything up to `seq`: events that are read after it, with
        `since=EPOCH:SEQ`, go on without gap or overlap. The name is one segment of the path, percent-encoded: a `/` in
        it is written `%2F`.
        """
        asking = await self._begin(call)
        given = decode_query(call.query, PARAMETERS)
        return await self._of_one(_Request.read(call, asking, given), call.name)

    async def history(self, call: Call) -> Answer:
        """Return the past of the one device that `device_id` names, or of all that `devices` selects.

        The same as `/api/data/{device_id}/history`; of several devices, the answer is by device, and holds at most
        100,000 entries or points. A page of one of them goes on at the device's own address.
        """
        asking = await self._begin(call)
        given = decode_query(call.query, PARAMETERS | {"device_id", "devices"})
        names = given.get("device_id", [])
        if len(names) > 1 or bool(names) == ("devices" in given):
            raise ValidationFailed("`device_id` names the one device, or `devices` has patterns: one of them is needed")
        if not names and not any(given["devices"]):
            raise ValidationFailed("`devices` must have a pattern, such as `lab/*`, or `*` for all; this one is empty")
        request = _Request.read(call, asking, given)
        return await (self._of_one(request, names[0]) if names else self._of_many(request, given["devices"]))

    async def _begin(self, call: Call) -> Asking:
        asking = Asking(self._parts, call)
        await asking.hub.reads.turn(len(call.query), asking.budget)
        return asking

    async def _of_one(self, request: _Request, name: str) -> Answer:
        asking, asked = request.asking, request.asked
        check_id(name, "`device_id`")
        if not asking.principal.may("read", name):
            raise no_such_device(name)
        span = await _span(asked, asking, (name,))
        if asked.buckets is not None:
            return await self._buckets(request, asked.buckets, span, (name,), is_one=True)
        query = asked.page(name, asking.log) if asked.cursor else asked.entries((name,), span)
        if query.until_seq > asking.hub.state.seq:
            raise BadCursor(f"this cursor is of position {query.until_seq}, which the log has not come to")
        (page,), reaches_back_to = await asking.of(lambda history: history.entries(query))
        if not page.entries:
            await asking.check_known(name)
        found = _found(asking, query.until_seq, reaches_back_to)
        cursor = _cursor_of(page, query, asked, asking)
        if request.format != "json":
            return request.answer(request.lines(page.entries), found, cursor)
        head = answers.HistoryEntries(device_id=name, **found._asdict(), cursor=cursor or UNSET, entries=answers.here())
        return request.answer(answers.entries_json(head, page.entries, asked.paths), found, cursor)

    async def _of_many(self, request: _Request, patterns: list[str]) -> Answer:
        asking, asked = request.asking, request.asked
        if asked.cursor:
            raise ValidationFailed("a cursor is of one device: it goes with the device's own address, or `device_id`")
        wanted = subscription_to(rules_of_query({"devices": patterns})).wanted.names("data_update")
        selected = asking.names(wanted)
        names = tuple(await asking.of(lambda history: history.names(selected)))
        span = await _span(asked, asking, names)
        if asked.buckets is not None:
            return await self._buckets(request, asked.buckets, span, names, is_one=False)
        query = asked.entries(names, span)
        told, reaches_back_to = await asking.of(lambda history: history.entries(query))
        pages = [page for page in told if page.entries]
        found = _found(asking, query.until_seq, reaches_back_to)
        if request.format != "json":
            return request.answer(request.lines([entry for page in pages for entry in page.entries]), found)
        devices = ((_head_of(page, query, asked, asking), page.entries) for page in pages)
        head = answers.ManyHistoryEntries(**found._asdict(), devices=answers.here())
        return request.answer(answers.many_entries_json(head, devices, asked.paths), found)

    async def _buckets(
        self, request: _Request, buckets: Buckets, span: Span, names: tuple[str, ...], *, is_one: bool
    ) -> Answer:
        asking = request.asking
        every, query = request.asked.added_up(names, span, buckets)
        series, reaches_back_to = await asking.of(lambda history: history.buckets(query))
        if is_one and not any(each.starts_us for each in series):
            await asking.check_known(names[0])
        found = _found(asking, query.until_seq, reaches_back_to)
        shown = [
            filled(each, query.edges, query.aggregates, buckets.fill, asking.now_us)
            for each in series
            if is_one or each.starts_us
        ]
        if request.format == "csv":
            return request.answer(lines.buckets_csv(shown, query.aggregates), found)
        if request.format == "ndjson":
            return request.answer(lines.buckets_ndjson(shown, query.aggregates), found)
        described = _described(found, every, buckets, query, asking.now_us)
        return request.answer(_buckets_json(shown, described, query, is_one=is_one), found)


def _found(asking: Asking, seq: int, reaches_back_to: str | None) -> _Found:
    """Return what an answer says beside what was found, if the caller may still have it."""
    asking.recheck()  # its turn may have been long in coming
    return _Found(asking.hub.state.epoch, seq, reaches_back_to)


async def _span(asked: Asked, asking: Asking, names: tuple[str, ...]) -> Span:
    """Return the range that is asked for: of the log as it is now, or as of a position.

    Raises:
        UnknownEpoch: a position is of another log.
        Ahead: the log has not come to a position.
        BadRange: the range is turned round.
    """
    since, until = asked.since, asked.until
    span = default_span(asked, asking.now_us, asking.hub.state.seq)
    if isinstance(until, Position):
        span = span._replace(until_seq=asking.check_position(until))
        if asked.buckets is not None:
            to_us = await _stored_behind(max(0, until.seq - 1), asking) + 1
            span = span._replace(to_us=to_us, from_us=since if isinstance(since, int) else to_us - DAY_US)
            span = span._replace(to_us=await _end_of(span, asked, asking, names))
    if isinstance(since, Position):
        span = span._replace(after_seq=asking.check_position(since))
        if asked.buckets is not None:  # whole ones, from the one that has the first entry behind the position
            span = span._replace(from_us=min(await _stored_behind(since.seq, asking), span.to_us))
    if span.from_us > span.to_us:
        raise BadRange(f"`from` is {text_of(span.from_us)}, later than `to`, {text_of(span.to_us)}")
    return span


async def _end_of(span: Span, asked: Asked, asking: Asking, names: tuple[str, ...]) -> int:
    """Return the end of a range that ends with an entry: behind the time of each one up to it.

    Readings may be of a time that is ahead of the one at which the entry was stored.
    """
    query = EntriesQuery(
        *(names, frozenset(READINGS), span.to_us, MAX_US + 1, 0, span.until_seq), by_stored=asked.by_stored, limit=1
    )
    pages, _ = await asking.of(lambda history: history.entries(query))
    newest = (place_of(entry, by_stored=asked.by_stored).at_us for page in pages for entry in page.entries)
    return max(newest, default=span.to_us - 1) + 1


async def _stored_behind(seq: int, asking: Asking) -> int:
    """Return when the entry behind a position was stored, or the oldest one that is still there; now if there is none.

    A clock that was set back must not make a range that is turned round.
    """
    try:
        entries: Sequence[Entry] = await asking.hub.read(seq, 1)
    except Truncated:
        oldest = await asking.of(lambda history: history.oldest())
        entries = () if oldest is None else (oldest,)
    return min(stored_us(entries[0]), asking.now_us) if entries else asking.now_us


def _cursor_of(page: EntriesPage, query: EntriesQuery, asked: Asked, asking: Asking) -> str:
    """Return the cursor of the page that follows; empty if there is none."""
    if not (page.has_more and page.entries):
        return ""
    place = place_of(page.entries[-1], by_stored=query.by_stored)
    cursor = Cursor(query.from_us, query.to_us, query.after_seq, query.until_seq, place)
    return cursor.text(asked.digest(page.device_id, asking.log))


def _head_of(page: EntriesPage, query: EntriesQuery, asked: Asked, asking: Asking) -> answers.DeviceEntries:
    cursor = _cursor_of(page, query, asked, asking)
    return answers.DeviceEntries(device_id=page.device_id, cursor=cursor or UNSET, entries=answers.here())


def _described(found: _Found, every: Every, buckets: Buckets, query: BucketsQuery, now_us: int) -> dict[str, Any]:
    return {
        **found._asdict(),
        "every": str(every),
        "tz": buckets.tz,
        "from_utc": text_of(query.edges[0]),
        "to_utc": text_of(query.edges[-1]),
        "is_open": query.edges[-1] > now_us,
    }


def _buckets_json(
    series: Sequence[Series], described: dict[str, Any], query: BucketsQuery, *, is_one: bool
) -> Iterator[bytes]:
    columns = (answers.columns_of(each, query.aggregates) for each in series)
    if is_one and len(series) == 1:
        return iter((encode(answers.HistoryBuckets(**described, **next(columns))),))
    head = answers.ManyHistoryBuckets(**described, series=answers.here())
    return answers.buckets_json(head, (answers.Columns(**each) for each in columns))
