"""`twincast host`: this machine as a device."""

import asyncio
import socket
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from twincast.cli.lasting import say_waiting, until_interrupted
from twincast.cli.options import Fingerprint, Url, commands, server_url
from twincast.cli.terminal import err, out
from twincast.cli.units import counted
from twincast.client import connect
from twincast.wire import implementation

app = commands()


@app.command()
def command(
    device: Annotated[str | None, typer.Option(help="Its name. \\[default: host/ and this machine's name]")] = None,
    interval: Annotated[float, typer.Option(min=0.05, help="Seconds between readings.")] = 1.0,
    count: Annotated[int | None, typer.Option(min=1, help="How many readings; until Ctrl-C if not given.")] = None,
    url: Url = None,
    fingerprint: Fingerprint = None,
) -> None:
    """Push this machine's CPU, memory, disk and network as a device."""
    until_interrupted(host(server_url(url, fingerprint), device, interval, count))


class Vitals:
    """What this machine does: shares in percent, rates in bytes a second since the reading before."""

    def __init__(self, now_s: float) -> None:
        self._before = self._counters()
        self._before_s = now_s
        psutil.cpu_percent()  # the first call has nothing to compare with

    def read(self, now_s: float) -> dict[str, Any]:
        """Take one reading; `now_s` is any clock that only goes forward."""
        counters = self._counters()
        seconds = max(now_s - self._before_s, 1e-3)
        rates = {name: round((counters[name] - self._before.get(name, 0)) / seconds) for name in counters}
        self._before, self._before_s = counters, now_s
        return {
            "cpu_percent": psutil.cpu_percent(),
            "memory_percent": psutil.virtual_memory().percent,
            "disk_percent": psutil.disk_usage(Path.home().anchor).percent,
            "load_1m": round(psutil.getloadavg()[0], 2),
            **rates,
        }

    @staticmethod
    def _counters() -> dict[str, int]:
        disk, network = psutil.disk_io_counters(), psutil.net_io_counters()
        return {
            "disk_read_bytes_per_s": disk.read_bytes if disk else 0,
            "disk_write_bytes_per_s": disk.write_bytes if disk else 0,
            "network_in_bytes_per_s": network.bytes_recv if network else 0,
            "network_out_bytes_per_s": network.bytes_sent if network else 0,
        }


async def host(url: str, device_id: str | None, interval_s: float, count: int | None) -> None:
    """Push this machine's vitals at each interval, until it is interrupted or has done so `count` times.

    Raises:
        TwincastError: the server refuses the readings.
    """
    device_id = device_id or f"host/{socket.gethostname()}"
    loop = asyncio.get_running_loop()
    vitals = Vitals(loop.time())
    stored = 0
    err.print(
        f"This machine is {device_id}; a reading every {interval_s:g} s; Ctrl-C stops."
        f" Messages are {implementation.described()}"
    )
    try:
        async with connect(url, devices=(), timeout_s=None, on_link=say_waiting) as client:
            while count is None or stored < count:
                await asyncio.sleep(interval_s)
                await client.publish(device_id, vitals.read(loop.time()))
                stored += 1
    finally:
        out.print(f"stored: {counted(stored, 'reading')}")
