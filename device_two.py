"""A device on REST: it posts readings, sends a command now and then, and prints how the server is."""

import argparse
import random
import time

from twincast.client import Rest
from twincast.errors import ServerUnreachable

DEVICE_ID = "device-2"
READINGS_A_COMMAND = 5


def main(url: str, count: int | None) -> None:
    """Post a reading every second; wait for a server that is not there."""
    sent = 0
    with Rest(url) as server:
        while count is None or sent < count:
            try:
                event = server.publish(DEVICE_ID, {"humidity": round(random.uniform(40, 60), 1)})
                print("stored", event)
                if sent % READINGS_A_COMMAND == 0:
                    print("dispatched", server.control("device-1", "set_interval", {"seconds": 1}))
                    print("status", server.status())
                sent += 1
            except ServerUnreachable as reason:
                print(f"{reason}; again in 1 s")
            time.sleep(1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the server's address")
    parser.add_argument("--count", type=int, help="how many readings to send; without end if not given")
    arguments = parser.parse_args()
    try:
        main(arguments.url, arguments.count)
    except KeyboardInterrupt:
        print("stopped")
