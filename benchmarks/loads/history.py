"""History: what questions about millions of entries take, over HTTP, beside what users would build themselves.

Each peer's answer is compared with twincast's: figures of answers that differ would be worthless.
"""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.history.asked import Asked, Took, of_device, took
from benchmarks.history.beside import HAS_DUCKDB, PAGE_RECORDS, IndexedLog, Parquet, PocketBasePages
from benchmarks.history.fleets import END_US, A, B, C, Fleet
from benchmarks.history.made import journal
from benchmarks.machine import LOAD_CORE, use_core
from benchmarks.peers import Twincast
from twincast.history.times import text_of
from twincast.journal.sqlite.history.files import OPEN_END

TWINCAST = Twincast("sqlite", flags=("--partition-entries", "0"))
"""As it is by default, but that nothing is closed meanwhile: what is open is to stay as much."""
SMALLER = 64
"""By so much the logs are smaller, where it is only to be seen that everything works."""
POINTS = 1_000
DAY_US = 86_400_000_000
SPANS_US = {"hour": DAY_US // 24, "day": DAY_US, "month": 30 * DAY_US, "year": 365 * DAY_US}
PAGE, MONTH = "newest 1,000", "month as 1,000 points"
PERCENTILES = "p50 and p95 by hour of its month"
Sample = tuple[str, str, float]


class Differs(Exception):
    """A peer answers something else. A figure of such a run would be worthless."""


def of_a_fleet(seconds: float) -> Iterator[Sample]:
    """Ask for pages and charts of devices, among a thousand with ten million entries."""
    fleet = _sized(A, seconds)
    usual, busiest = fleet.device(fleet.usual), fleet.device(0)
    with _serving(fleet) as (asked, path):
        yield from _bytes_of(fleet, path)
        for figure, question in _questions(fleet, usual, busiest).items():
            yield from _sample(figure, TWINCAST.name, asked.took(question))
        page = asked.answer(of_device(usual, limit=PAGE_RECORDS))
        charts = [
            (figure, device, asked.answer(_month(device, fleet)))
            for figure, device in ((MONTH, usual), (f"{MONTH}, of the busiest", busiest))
        ]
    use_core(None)
    with closing(IndexedLog(fleet, _told)) as log:
        yield from _paged(log, usual, page)
        for figure, device, chart in charts:
            yield from _charted_by_index(log, figure, device, chart)
    if HAS_DUCKDB:
        with closing(Parquet(fleet, _told)) as parquet:
            for figure, device, chart in charts:
                yield from _charted(parquet, figure, device, chart)
    yield from _pages_of_pocketbase(fleet)


def _questions(fleet: Fleet, usual: str, busiest: str) -> dict[str, str]:
    """Return the questions of a fleet by their figures."""
    closed_utc = text_of(fleet.begin_us + fleet.closed_entries * fleet.step_us)
    by_hour = {"every": "1h", "agg": "p50,p95", "from_": text_of(fleet.begin_us), "to": text_of(END_US)}
    return {
        PAGE: of_device(usual, limit=PAGE_RECORDS),
        f"{PAGE}, of what is closed": of_device(usual, limit=PAGE_RECORDS, to=closed_utc),
        MONTH: _month(usual, fleet),
        f"{MONTH}, of the busiest": _month(busiest, fleet),
        f"{MONTH}, of a number in an object": _month(fleet.device(fleet.nested), fleet, path="/motor/rpm"),
        PERCENTILES: of_device(usual, **by_hour),
        f"{PERCENTILES}, of the busiest": of_device(busiest, **by_hour),
        "commands of the busiest, which had none": of_device(busiest, limit=PAGE_RECORDS, kinds="control,deleted"),
    }


def of_one_at_1_hz(seconds: float) -> Iterator[Sample]:
    """Ask for an hour, a day, a month and a year of a device that reports each second, up to now."""
    fleet = _sized(B, seconds)
    device, walls_ms, charts = fleet.device(0), [], {}
    with _serving(fleet) as (asked, path):
        yield from _bytes_of(fleet, path)
        for span, span_us in SPANS_US.items():
            question = of_device(device, points=POINTS, from_=text_of(END_US - span_us), to=text_of(END_US))
            charts[span] = asked.answer(question)
            cost = asked.took(question)
            walls_ms.append(cost.wall_ms)
            yield from _sample(f"{span} at 1 Hz as 1,000 points", TWINCAST.name, cost)
        yield "history: the slowest of these over the fastest", TWINCAST.name, max(walls_ms) / min(walls_ms)
    if not HAS_DUCKDB:
        return
    use_core(None)
    with closing(Parquet(fleet, _told)) as peer:
        for span, chart in charts.items():
            yield from _charted(peer, f"{span} at 1 Hz as 1,000 points", device, chart)


def of_states(seconds: float) -> Iterator[Sample]:
    """Ask for the state of ten thousand devices as it was, among ten million entries."""
    fleet = _sized(C, seconds)
    with _serving(fleet) as (asked, _):
        half, open_ = fleet.entries // 2, fleet.entries - fleet.partition_entries // 2
        for figure, seq in ("state of 10,000 devices at a time", half), ("the same, of what is open", open_):
            question = "/api/data?at=" + text_of(fleet.begin_us + seq * fleet.step_us).replace("+", "%2B")
            state = asked.answer(question)
            if state["seq"] != seq:
                raise Differs(f"{question} is position {seq}, not {state['seq']}")
            yield from _sample(figure, TWINCAST.name, asked.took(question))
            if seq == half:
                twins = {name: (twin["value"], twin["seq"]) for name, twin in state["data"].items()}
    use_core(None)
    with closing(IndexedLog(fleet, _told, index=False)) as peer:
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        found = peer.state(half)
        cost = Took(1e3 * (time.perf_counter() - began_s), 1e3 * (time.process_time() - began_cpu_s))
    if {name: seq for name, _, seq in found} != {name: seq for name, (_, seq) in twins.items()}:
        raise Differs("the state is another one")
    yield from _sample("state of 10,000 devices at a time", "a user's `group by`", cost)


def _sized(fleet: Fleet, seconds: float) -> Fleet:
    return fleet if seconds >= 1 else fleet.smaller(SMALLER)


def _told(what: str) -> None:
    print(what, flush=True)


@contextmanager
def _serving(fleet: Fleet) -> Iterator[tuple[Asked, Path]]:
    """Run a server on a fleet's journal, on one core, until its open end is indexed."""
    use_core(None)
    path = journal(fleet, _told)
    use_core(LOAD_CORE)
    with TWINCAST.running(file=path) as (process, port):
        asked = Asked(process, port)
        asked.wait_until_indexed(Path(f"{path}-history", OPEN_END), fleet.entries - fleet.closed_entries)
        yield asked, path


def _sample(figure: str, system: str, cost: Took) -> Iterator[Sample]:
    yield f"history: {figure}, ms", system, cost.wall_ms
    yield f"history: {figure}, CPU ms", system, cost.cpu_ms


def _bytes_of(fleet: Fleet, path: Path) -> Iterator[Sample]:
    """Give what an entry takes of the disk, in partitions, and all in all while the server runs."""
    folder = Path(f"{path}-history")
    closed = sum(file.stat().st_size for file in folder.glob("0*.db"))
    whole = sum(file.stat().st_size for file in (*path.parent.glob("journal.db*"), *folder.iterdir()) if file.is_file())
    yield f"history: bytes an entry in partitions, {fleet.name}", TWINCAST.name, closed / fleet.closed_entries
    yield f"history: bytes an entry in all, {fleet.name}", TWINCAST.name, whole / fleet.entries


def _month(device: str, fleet: Fleet, **parameters: object) -> str:
    return of_device(device, points=POINTS, from_=text_of(fleet.begin_us), to=text_of(END_US), **parameters)


def _paged(peer: IndexedLog, device: str, page: Any) -> Iterator[Sample]:
    if [seq for seq, *_ in peer.newest(device, PAGE_RECORDS)] != [entry["seq"] for entry in page["entries"]]:
        raise Differs("the newest entries are others")
    yield from _sample(PAGE, peer.name, took(lambda: peer.newest(device, PAGE_RECORDS)))


def _charted_by_index(peer: IndexedLog, figure: str, device: str, chart: Any) -> Iterator[Sample]:
    width_s = _width_us(chart) // 1_000_000
    check_chart(chart, [(start * 1_000, *numbers) for start, *numbers in peer.charted(device, width_s)])
    yield from _sample(figure, peer.name, took(lambda: peer.charted(device, width_s)))


def _charted(peer: Parquet, figure: str, device: str, chart: Any) -> Iterator[Sample]:
    width_us = _width_us(chart)
    asked = (device, chart["time_ms"][0] * 1_000, chart["time_ms"][-1] * 1_000 + width_us, width_us)
    check_chart(chart, [(start // 1_000, *numbers) for start, *numbers in peer.charted(*asked)])
    yield from _sample(figure, peer.name, took(lambda: peer.charted(*asked)))


def _width_us(chart: Any) -> int:
    width_ms: int = min(after - before for before, after in pairwise(chart["time_ms"]))
    return 1_000 * width_ms


def check_chart(chart: Any, found: Sequence[Any]) -> None:
    """Check that two charts show the same. Raises Differs."""
    columns = chart["time_ms"], chart["avg"], chart["min"], chart["max"]
    for ours, theirs in zip(zip(*columns, strict=True), found, strict=False):
        if not all(math.isclose(one, other, rel_tol=1e-9) for one, other in zip(ours, theirs, strict=True)):
            raise Differs(f"{theirs} instead of {ours}")
    if len(found) != len(columns[0]):
        raise Differs(f"{len(found)} buckets instead of {len(columns[0])}")


def _pages_of_pocketbase(fleet: Fleet) -> Iterator[Sample]:
    if not PocketBasePages.is_here:
        return
    peer = PocketBasePages(fleet)
    use_core(LOAD_CORE)
    with peer.running() as (process, port):
        asked = Asked(process, port)
        device = fleet.device(fleet.usual)
        found = asked.answer(peer.newest(device))["items"]
        if not found or any(record["device_id"] != device for record in found):
            raise Differs(f"{len(found)} records, not all of {device}")
        yield from _sample(PAGE, peer.name, asked.took(peer.newest(device)))
