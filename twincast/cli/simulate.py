"""`twincast simulate`: a fleet that pushes at a rate."""

import asyncio
import time
from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from twincast.cli.arguments import duration_s
from twincast.cli.fleet import Signal, fleet
from twincast.cli.lasting import say_waiting, until_interrupted
from twincast.cli.options import Fingerprint, Url, commands, server_url
from twincast.cli.terminal import err, out
from twincast.cli.units import counted
from twincast.client import Client, connect
from twincast.errors import ValidationFailed
from twincast.later import later

if TYPE_CHECKING:  # a fleet without a past asks nothing by REST
    from twincast.cli import backfill as past
else:
    past = later("twincast.cli.backfill")

TICK_S = 0.02


app = commands()


@app.command()
def command(
    *,
    devices: Annotated[int, typer.Option(min=1, help="How many devices the fleet has.")] = 20,
    rate: Annotated[float, typer.Option(min=0.01, help="Readings a second, of all devices together.")] = 20.0,
    seconds: Annotated[float | None, typer.Option(min=0, help="How long; until Ctrl-C if not given.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed makes the same fleet.")] = 0,
    backfill: Annotated[
        str | None,
        typer.Option(
            help="First send a past so long, such as 30d: a reading a device and minute, where there is none yet."
        ),
    ] = None,
    url: Url = None,
    fingerprint: Fingerprint = None,
) -> None:
    """Push the signals of a fleet that does not exist."""
    backfill_s = None if backfill is None else _back_s(backfill)
    until_interrupted(simulate(server_url(url, fingerprint), devices, rate, seconds, seed, backfill_s=backfill_s))


def _back_s(text: str) -> int:
    """Read how far back a fleet is to go. Raises typer.BadParameter if that is no duration, or too far."""
    try:
        back_s = duration_s(text)
    except ValidationFailed as error:
        raise typer.BadParameter(error.message) from None
    if not past.STEP_S <= back_s <= past.MAX_S:
        raise typer.BadParameter(f"--backfill is from a minute, 60s, to {past.MAX_S // 86_400}d; not {text}")
    return back_s


class Simulation:
    """A fleet, its rate, and the counts that its progress shows."""

    def __init__(
        self, devices: Sequence[tuple[str, Signal]], rate: float, seconds: float | None, wall_s: float = 0.0
    ) -> None:
        self._rate = rate
        self._seconds = seconds
        self._fleet = cycle(devices)
        self._wall_s = wall_s
        self._sent = 0
        self._began_s = 0.0
        self.stored = 0
        self._refused: BaseException | None = None

    @property
    def elapsed_s(self) -> float:
        """How long the fleet has pushed: its time begins once it is connected, and is not longer than what is asked."""
        elapsed_s = asyncio.get_running_loop().time() - self._began_s
        return elapsed_s if self._seconds is None else min(elapsed_s, self._seconds)

    @property
    def is_over(self) -> bool:
        """Whether its time is up."""
        return self._seconds is not None and self.elapsed_s >= self._seconds

    async def run(self, url: str, progress: Progress) -> None:
        """Push until the time is up, whatever happens to the connection.

        Raises:
            TwincastError: the server refused a reading for good; it would refuse the others too.
        """
        bar = progress.add_task("fleet", total=self._seconds)
        async with connect(url, devices=(), timeout_s=None, on_link=say_waiting) as client:
            self._began_s = asyncio.get_running_loop().time()
            is_over = False
            while not is_over:
                await asyncio.sleep(TICK_S)
                is_over = self.is_over  # before the last turn, which sends what is due of all the time
                await self._catch_up(client)
                rate = self.stored / max(self.elapsed_s, 0.1)
                progress.update(bar, completed=self.elapsed_s, description=f"{self.stored:,} stored, {rate:,.0f}/s")
            await client.settle()
            self._check()

    async def _catch_up(self, client: Client) -> None:
        due = int(self.elapsed_s * self._rate)
        if not client.is_connected:
            self._sent = due  # what a lost server missed is not made up for
        while self._sent < due:
            self._check()
            device_id, signal = next(self._fleet)
            future = await client.submit(device_id, signal(time.time() + self._wall_s))
            future.add_done_callback(self._count)
            self._sent += 1

    def _check(self) -> None:
        if self._refused is not None:
            raise self._refused

    def _count(self, future: asyncio.Future[int]) -> None:
        if future.cancelled():
            return
        self._refused = future.exception() or self._refused  # the client sends again what may succeed later
        self.stored += future.exception() is None


async def simulate(
    url: str, devices: int, rate: float, seconds: float | None, seed: int, *, backfill_s: int | None = None
) -> None:
    """Push a fleet's signals to a server.

    Args:
        url: the server.
        devices: how many the fleet has.
        rate: readings a second, of all together.
        seconds: how long; None for until it is interrupted.
        seed: the same seed makes the same fleet.
        backfill_s: how long a past the fleet gets before; None for none.

    Raises:
        TwincastError: the server refuses the readings.
    """
    members, wall_s = list(fleet(devices, seed)), float(time.localtime().tm_gmtoff)
    if backfill_s is not None:
        span = past.span_until(time.time(), backfill_s)
        stored = await past.backfill(url, members, span, wall_s)
        out.print(f"{counted(stored, 'past reading')} of {counted(devices, 'device')} stored")
    simulation = Simulation(members, rate, seconds, wall_s)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, console=err.console, transient=True, refresh_per_second=4) as progress:
            await simulation.run(url, progress)
    finally:
        out.print(f"{counted(simulation.stored, 'reading')} of {counted(devices, 'device')} stored")
