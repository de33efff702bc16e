"""Logs and questions about them, for Hypothesis: with times that repeat, go back, and lie before 1970."""

from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st
from msgspec import UNSET, Raw, UnsetType

from twincast.core.lateness import NEVER, decide
from twincast.core.model import KINDS, Control, DataUpdate, Deleted, Entry
from twincast.history.pointer import Pointer
from twincast.history.query import AGGREGATES, BucketsQuery, EntriesQuery, Place
from twincast.history.times import HOUR_US, MAX_US, MIN_US, us_of
from twincast.history.widths import Every, edges, zone_of

START = datetime(2026, 10, 25, 0, 0, tzinfo=UTC)  # an hour later clocks in Berlin go back
START_US = us_of(START)
NAMES = ("a", "b", "lab/c")
VALUES = (
    *(b"1", b"2", b"-3", b"2.5", b"1e2", b"-0.25", b"9223372036854775807", b"9223372036854775808", b"0.1", b"0"),
    *(b'"7"', b"true", b"null", b"[1,2.5]", b'{"x":4,"y":{"z":[5,"6"]}}', b'{"x":"4","a/b":1.5,"m~n":2}', b"{}"),
)
AHEAD_S = (0.0, -1.0, -3_600.0, -86_400.0, 59.0, 60.0, 61.0, 1e9, -3e9)
"""How far a device's clock says that it is ahead: a minute is believed, more is not."""
PATHS = tuple(map(Pointer, ("", "/x", "/y/z/0", "/y/z/1", "/1", "/a~1b", "/m~0n", "/nowhere")))

moments_s = st.one_of(
    st.sampled_from([0, 1, 59, 60, 3_600, 3_600 * 24, -1]),
    st.integers(-400_000, 400_000),
).map(float) | st.floats(-100_000, 100_000, allow_nan=False)


def text_of(offset_s: float) -> str:
    return (START + timedelta(seconds=round(offset_s, 3))).isoformat(timespec="microseconds")


@st.composite
def logs(draw: st.DrawFn, *, max_size: int = 40) -> list[Entry]:
    """Draw a log: entries of some devices, their times as they please."""
    entries: list[Entry] = []
    offset_s = 0.0
    for seq in range(1, draw(st.integers(0, max_size)) + 1):
        step = draw(st.sampled_from([0.0, 0.0, 0.5, 1.0, 1_800.0, 3_600.0, 86_400.0, -7_200.0]))
        offset_s += step
        at_utc, name = text_of(offset_s), draw(st.sampled_from(NAMES))
        kind = draw(st.sampled_from(["reading"] * 8 + ["control", "deleted"]))
        if kind == "control":
            entries.append(Control(name, "go", Raw(b'{"x":1}'), at_utc, "rest", seq, "e"))
        elif kind == "deleted":
            entries.append(Deleted(name, at_utc, "websocket", seq, "e"))
        else:
            value, ahead_s = Raw(draw(st.sampled_from(VALUES))), draw(st.none() | st.sampled_from(AHEAD_S))
            entries.append(
                DataUpdate(name, value, at_utc, "rest", seq, "e", measured_at_utc=_claimed(offset_s, ahead_s))
            )
    decide(entries, lambda _: NEVER)  # which of them are late, and whose clocks are off
    return entries


def _claimed(offset_s: float, ahead_s: float | None) -> str | UnsetType:
    return UNSET if ahead_s is None else text_of(offset_s + ahead_s)


@st.composite
def entries_queries(draw: st.DrawFn, head: int) -> EntriesQuery:
    """Draw a question for entries of a log of some length."""
    ends = sorted(draw(st.tuples(moments_s, moments_s)))
    from_us, to_us = (START_US + round(end * 1_000) * 1_000 for end in ends)
    beyond = st.builds(Place, st.integers(START_US - 10**9, START_US + 10**11), st.integers(0, head))
    return EntriesQuery(
        devices=tuple(draw(st.lists(st.sampled_from((*NAMES, "nobody")), min_size=1, max_size=3, unique=True))),
        kinds=draw(st.sampled_from([frozenset({"data_update", "late"}), frozenset({"late"}), KINDS])),
        from_us=draw(st.sampled_from([MIN_US, from_us])),
        to_us=draw(st.sampled_from([MAX_US + 1, to_us])),
        after_seq=draw(st.sampled_from([0, 0, head // 2])),
        until_seq=draw(st.integers(0, head)) if draw(st.booleans()) else head,
        by_stored=draw(st.booleans()),
        paths=tuple(draw(st.lists(st.sampled_from(PATHS), max_size=2, unique=True))),
        is_descending=draw(st.booleans()),
        beyond=draw(st.none() | beyond),
        limit=draw(st.sampled_from([1, 2, 7, 1_000])),
    )


@st.composite
def buckets_queries(draw: st.DrawFn, head: int) -> BucketsQuery:
    """Draw a question for buckets of a log of some length."""
    zone = zone_of(draw(st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kathmandu", "America/St_Johns"])))
    every = Every.parse(draw(st.sampled_from(["500ms", "1s", "7m", "1h", "6h", "1d", "1w", "1mo", "1y"])))
    length_us = min(draw(st.sampled_from([HOUR_US, 30 * HOUR_US, 200 * HOUR_US])), every.about_us * 60)
    from_us = START_US + round(draw(moments_s) * 1_000) * 1_000
    return BucketsQuery(
        devices=tuple(draw(st.lists(st.sampled_from((*NAMES, "nobody")), min_size=1, max_size=2, unique=True))),
        paths=tuple(draw(st.lists(st.sampled_from(PATHS), min_size=1, max_size=2, unique=True))),
        edges=edges(every, zone, from_us, from_us + length_us, 10_000),
        aggregates=tuple(draw(st.lists(st.sampled_from(AGGREGATES), min_size=1, unique=True))),
        until_seq=draw(st.integers(0, head)) if draw(st.booleans()) else head,
        by_stored=draw(st.booleans()),
    )
