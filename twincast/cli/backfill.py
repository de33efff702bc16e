"""The past of a fleet that does not exist: a reading a device and minute, sent before the fleet goes on live."""

import asyncio
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple, TypeVar

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from twincast.cli.fleet import Signal
from twincast.cli.terminal import err
from twincast.cli.units import counted
from twincast.client import Rest
from twincast.client.backoff import Backoff
from twincast.errors import NotPermitted, RateLimited, TwincastError

STEP_S = 60
SLOT_S = 600
"""A device that has a reading within such a span, aligned to the epoch, gets no further ones there: so it is filled
once, however often it is begun. It is as fine as a month's spans fit into one answer."""
SLOTS_MAX = 10_000
"""As many buckets as the server answers."""
POINTS_MAX = 100_000
"""As many as it answers of all devices together."""
BATCH_MIN = 2_000
"""Few enough bytes for every server, also for one whose log is shared."""
MAX_S = SLOTS_MAX * SLOT_S - SLOT_S
"""How far back a fleet can go: 69 days."""

Known = Mapping[str, set[int]]
"""Of each device in which slots it has readings: their starts, in seconds since 1970."""
Past = tuple[str, Any, str]
"""A device, a value, and when it would have been measured."""
Found = TypeVar("Found")


class Span(NamedTuple):
    """The minutes from one to another, that one not included; in seconds since 1970."""

    from_s: int
    to_s: int

    @property
    def slots(self) -> range:
        """The slots that have some of it."""
        return range(self.from_s // SLOT_S * SLOT_S, self.to_s, SLOT_S)

    def minutes(self, slot_s: int) -> range:
        """Return those that are in a slot."""
        return range(max(slot_s, self.from_s), min(slot_s + SLOT_S, self.to_s), STEP_S)


def span_until(now_s: float, back_s: int) -> Span:
    """Return the last whole minutes, as many as fit into `back_s` seconds."""
    to_s = int(now_s) // STEP_S * STEP_S
    return Span(to_s - back_s // STEP_S * STEP_S, to_s)


def lacking(names: Sequence[str], span: Span, known: Known) -> int:
    """Return how many readings are to be sent."""
    return sum(
        len(span.minutes(slot_s)) * sum(slot_s not in known.get(name, ()) for name in names) for slot_s in span.slots
    )


def batches(fleet: Sequence[tuple[str, Signal]], span: Span, known: Known, wall_s: float) -> Iterator[list[Past]]:
    """Yield the readings that are lacking, the oldest first, in batches that have whole slots.

    Args:
        fleet: names and signals; these are asked for rising times.
        span: what is filled.
        known: the slots that are left out.
        wall_s: how far the clock on the wall is ahead of UTC.
    """
    batch: list[Past] = []
    for slot_s in span.slots:
        times = [(at_s + wall_s, _text_of(at_s)) for at_s in span.minutes(slot_s)]
        for name, signal in fleet:
            if slot_s not in known.get(name, ()):
                batch += [(name, signal(time_s), at_utc) for time_s, at_utc in times]
            if len(batch) >= BATCH_MIN:
                yield batch
                batch = []
    if batch:
        yield batch


def ask_known(rest: Rest, names: Sequence[str], span: Span) -> Known:
    """Ask which slots have readings. A credential that may not read knows of none. Raises what `Rest.history` does."""
    known: dict[str, set[int]] = {}
    at_once = max(1, POINTS_MAX // len(span.slots))
    for begin in range(0, len(names), at_once):
        try:
            past = rest.history(
                devices=names[begin : begin + at_once], from_=_text_of(span.from_s), every="10m", agg="last"
            )
        except NotPermitted:
            return {}
        known.update({each.device_id: {time_ms // 1_000 for time_ms in each.time_ms} for each in past.series})
    return known


async def backfill(url: str, fleet: Sequence[tuple[str, Signal]], span: Span, wall_s: float) -> int:
    """Send what the fleet lacks of its past; return how many readings that were.

    The oldest go first, so that each becomes its device's state and the last one stays it. Those of a device that has
    a newer reading are kept as late. A batch whose answer is lost is sent again, and stored once.

    Args:
        url: the server.
        fleet: as `fleet` makes it.
        span: what is filled.
        wall_s: how far the clock on the wall is ahead of UTC.

    Raises:
        TwincastError: the server refuses it for good.
    """
    names = [name for name, _ in fleet]
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Rest(url) as rest, Progress(*columns, console=err.console, transient=True, refresh_per_second=4) as progress:
        known = await _insist(lambda: ask_known(rest, names, span))
        total, stored = lacking(names, span, known), 0
        bar = progress.add_task("the past", total=total)
        run = secrets.token_hex(8)
        for number, batch in enumerate(batches(fleet, span, known, wall_s)):
            key = f"backfill-{run}-{number}"
            stored += len(await _insist(partial(rest.publish_all, batch, key=key)))
            progress.update(bar, completed=stored, description=f"{stored:,} of {counted(total, 'past reading')} stored")
    return stored


async def _insist(call: Callable[[], Found]) -> Found:
    """Return what a call answers, however often it has to be made. Raises what will not be another answer later."""
    backoff = Backoff()
    while True:
        try:
            return await asyncio.to_thread(call)
        except TwincastError as error:
            if not error.retryable:
                raise
            least_s = error.retry_after_s if isinstance(error, RateLimited) else 0.0
            wait_s = max(least_s, backoff.wait_s())
            err.print(f"waiting {error.message} (again in {wait_s:.1f} s)")
        await asyncio.sleep(wait_s)


def _text_of(at_s: int) -> str:
    return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%dT%H:%M:%SZ}"
