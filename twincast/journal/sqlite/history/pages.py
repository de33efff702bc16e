"""Entries of the history, a page for each device: merged from its sorted runs, as many as that takes."""

from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import NamedTuple

import msgspec

from twincast.core.model import Entry
from twincast.errors import TooMuch
from twincast.history.query import EntriesPage, EntriesQuery, Place
from twincast.journal.sqlite.history.layout import BELIEVED_AHEAD_US, KINDS
from twincast.journal.sqlite.history.sorted_run import Key, Look, SortedRun
from twincast.journal.sqlite.history.turns import Steps

LOOK_ENTRIES = 5_000
"""So many entries one statement looks at, at most; fewer if it has to take their values apart."""
LOOK_MIN_ENTRIES = 128
PARSE_ENTRIES = 2_000
READ_ENTRIES, READ_BYTES = 2_000, 1 << 20
"""So many entries, and so much text, one statement returns."""
_FAR = 1 << 62


class Source(NamedTuple):
    """Where a device may have entries; it is opened when its turn comes."""

    times_us: tuple[int, int]
    """The first and last time that there may be, of the kind by which the page goes."""
    open: Callable[[], SortedRun | None]


def page(query: EntriesQuery, device: str, sources: Sequence[Source], epoch: str) -> Steps[EntriesPage]:
    """Return a page of a device's entries."""
    need = query.limit + 1
    last_first = sorted(sources, key=_highest, reverse=True) if query.is_descending else sorted(sources, key=_lowest)
    found: list[Key] = []
    runs: list[SortedRun] = []
    for source in last_first:
        if len(found) >= need and _is_behind(source, found[-1], query):
            break
        run = source.open()
        if run is not None:
            found = yield from _merged(query, run, len(runs), found)
            runs.append(run)
    keys = _fitting(query, found)
    entries = yield from _read(device, keys, runs, epoch)
    return EntriesPage(device, entries, len(found) > len(keys))


def total_within(query: EntriesQuery, pages: Sequence[EntriesPage]) -> None:
    """Raise TooMuch if some pages have more entries together than an answer has."""
    if len(query.devices) > 1 and sum(len(each.entries) for each in pages) > query.entries_max:
        raise TooMuch(
            f"these devices have more than {query.entries_max:,} entries here; ask for fewer of each by"
            " `limit`, for less time, or for buckets by `every` or `points`"
        )


def _highest(source: Source) -> int:
    return source.times_us[1]


def _lowest(source: Source) -> int:
    return source.times_us[0]


def _is_behind(source: Source, last: Key, query: EntriesQuery) -> bool:
    """Whether all entries of a source come behind a place on the page."""
    return source.times_us[1] < last.time_us if query.is_descending else source.times_us[0] > last.time_us


def _merged(query: EntriesQuery, run: SortedRun, number: int, found: list[Key]) -> Steps[list[Key]]:
    """Add the entries of a run that come before those that are on the page already."""
    need = query.limit + 1
    is_by_at = not (query.by_stored and run.has_measured)
    look = _look(query, is_by_at=is_by_at)
    most = PARSE_ENTRIES if query.paths else LOOK_ENTRIES
    look.bindings["limit"] = min(max(need, LOOK_MIN_ENTRIES), most)
    while True:
        block = run.keys(look, number)
        found = sorted([*found, *block.keys], key=_place, reverse=query.is_descending)[:need]
        yield
        if block.looked_at < look.bindings["limit"]:
            return found
        place = _at(block.keys[-1]) if len(block.keys) == block.looked_at else run.nth(look)
        last = _place(found[-1]) if is_by_at and len(found) >= need else None
        if last is not None and (place <= last if look.is_descending else place >= last):
            return found
        look.bindings.update(at=place[0], seq=place[1], limit=most)


_place = attrgetter("time_us", "seq")


def _at(key: Key) -> tuple[int, int]:
    return key.at_us, key.seq


def _look(query: EntriesQuery, *, is_by_at: bool) -> Look:
    """Return where to begin to look.

    By another order than that of the run, all of it has to be seen; a time that counts is at most so far ahead of the
    stored one.
    """
    is_descending = query.is_descending and is_by_at
    from_us, to_us = (query.from_us, query.to_us) if is_by_at else (-_FAR, query.to_us + BELIEVED_AHEAD_US)
    place = Place(to_us, -1) if is_descending else Place(from_us - 1, _FAR)
    if is_by_at and query.beyond is not None:
        place = min(place, query.beyond) if is_descending else max(place, query.beyond)
    kinds = ", ".join(str(number) for number, name in KINDS.items() if name in query.kinds)
    wanted = f"{{kind}} in ({kinds})"
    bindings = {"at": place.at_us, "seq": place.seq, "until_us": from_us if is_descending else to_us}
    if query.after_seq:
        wanted += " and {seq} > :after_seq"
        bindings |= {"after_seq": query.after_seq}
    if not is_by_at:
        wanted += " and {time} >= :from_us and {time} < :to_us"
        bindings |= {"from_us": query.from_us, "to_us": query.to_us}
        if query.beyond is not None:
            wanted += f" and ({{time}}, {{seq}}) {'<' if query.is_descending else '>'} (:beyond_us, :beyond_seq)"
            bindings |= {"beyond_us": query.beyond.at_us, "beyond_seq": query.beyond.seq}
    return Look(bindings, is_descending, query.by_stored, wanted, query.paths)


def _fitting(query: EntriesQuery, found: Sequence[Key]) -> Sequence[Key]:
    """Return what fits a page: at most so many entries, and up to the one that makes it too many bytes."""
    size_bytes = 0
    for count, key in enumerate(found[: query.limit], 1):
        size_bytes += key.size_bytes
        if size_bytes >= query.page_max_bytes:
            return found[:count]
    return found[: query.limit]


def _read(device: str, keys: Sequence[Key], runs: Sequence[SortedRun], epoch: str) -> Steps[list[Entry]]:
    """Return the entries of some keys, in their order, but those that were to be read and were trimmed meanwhile."""
    entries: dict[int, Entry] = {}
    for first in range(0, len(keys), READ_ENTRIES):
        some = keys[first : first + READ_ENTRIES]
        entries.update((key.seq, key.entry(device, epoch)) for key in some if key.source)
        yield
    names = msgspec.json.encode(device).decode(), msgspec.json.encode(epoch).decode()
    for number, run in enumerate(runs):
        of_run = [key for key in keys if key.run == number and not key.source]
        are_dense = run.looked_at <= 2 * len(of_run)
        for part in _readable(of_run):
            entries.update((entry.seq, entry) for entry in run.entries(part, *names, are_dense=are_dense))
            yield
    return [entries[key.seq] for key in keys if key.seq in entries]


def _readable(keys: Sequence[Key]) -> Iterator[Sequence[Key]]:
    """Yield what one statement reads."""
    part: list[Key] = []
    size_bytes = 0
    for key in keys:
        if part and (len(part) >= READ_ENTRIES or size_bytes >= READ_BYTES):
            yield part
            part, size_bytes = [], 0
        part.append(key)
        size_bytes += key.size_bytes
    if part:
        yield part
