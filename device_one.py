"""A device on the WebSocket: it says how warm it is, once a second, prints what it hears, and obeys `set_interval`."""

import argparse
import asyncio
import random

from twincast.client import Change, Link, Watch, connect

DEVICE_ID = "device-1"


async def listen(changes: Watch) -> None:
    """Print what the server casts: our own readings, those of others, and commands."""
    async for change in changes:
        print("received", change)


def show(link: Link) -> None:
    """Say how we are connected. The hub reconnects by itself, and sends what was not stored yet."""
    print("connected" if link.phase == "live" else f"{link.reason}; again in {link.wait_s:.1f} s")


async def main(url: str, count: int | None) -> None:
    """Send telemetry every second, or as often as we are told to, whatever happens to the server."""
    interval_s = 1.0

    def obey(change: Change) -> None:
        nonlocal interval_s
        if change.command == "set_interval" and change.args:
            interval_s = max(0.1, float(change.args["seconds"]))
            print("a reading every", interval_s, "s")

    # As a context the watch hears even the first reading; awaited, on_command misses no command from here on.
    async with connect(url, timeout_s=None, on_link=show) as hub, hub.watch() as changes:
        listening = asyncio.create_task(listen(changes))
        await hub.on_command(DEVICE_ID, obey)
        temperature = 21.0
        sent = 0
        while count is None or sent < count:
            temperature += random.uniform(-0.2, 0.2)
            await hub.publish(DEVICE_ID, {"temperature": round(temperature, 2)})
            sent += 1
            await asyncio.sleep(interval_s)
        listening.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="ws://127.0.0.1:8000/ws", help="the server's address")
    parser.add_argument("--count", type=int, help="how many readings to send; without end if not given")
    arguments = parser.parse_args()
    try:
        asyncio.run(main(arguments.url, arguments.count))
    except KeyboardInterrupt:
        print("stopped")
