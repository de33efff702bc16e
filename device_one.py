"""A device on the WebSocket: it sends its temperature every second, prints all events, and obeys `set_interval`."""

import argparse
import asyncio
import random

from twincast.client import Command, Link, Watch, connect

DEVICE_ID = "device-1"


async def listen(events: Watch) -> None:
    """Print every event: our own readings, those of others, and commands."""
    async for event in events:
        print("received", event)


def show(link: Link) -> None:
    """Print the state of the connection. The client reconnects by itself, and sends what was not stored yet."""
    print("connected" if link.phase == "live" else f"{link.reason}; again in {link.wait_s:.1f} s")


async def main(url: str, count: int | None) -> None:
    """Send a reading every second, or as often as a command says, whatever happens to the server."""
    interval_s = 1.0

    def obey(command: Command) -> None:
        nonlocal interval_s
        if command.command == "set_interval" and "seconds" in command.args:
            interval_s = max(0.1, float(command.args["seconds"]))
            print("a reading every", interval_s, "s")

    # As a context the watch hears even the first reading; awaited, on_command misses no command from here on.
    async with connect(url, timeout_s=None, on_link=show) as client, client.watch() as events:
        listening = asyncio.create_task(listen(events))
        await client.on_command(DEVICE_ID, obey)
        temperature = 21.0
        sent = 0
        while count is None or sent < count:
            temperature += random.uniform(-0.2, 0.2)
            await client.publish(DEVICE_ID, {"temperature": round(temperature, 2)})
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
