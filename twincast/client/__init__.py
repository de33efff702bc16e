"""Talk to a server from Python: readings and commands out, changes and the state in.

    async with connect("http://127.0.0.1:8000") as hub:
        await hub.publish("lab/thermometer", 21.5)  # returns once it is on the server's disk
        async for change in hub.watch("lab/*"):
            print(change.device_id, change.value)

The connection keeps itself alive: it comes back after a loss, goes on where it was, and sends again what was not
acknowledged. `twincast.client.sync` has the same without asyncio, `Rest` by single requests.
docs/client.md is the guide.
"""

from twincast.client.address import http_url
from twincast.client.client import Client, connect
from twincast.client.events import Backlog, Change, Gap, Twin
from twincast.client.failures import error_of
from twincast.client.link import Link
from twincast.client.listener import Obeying
from twincast.client.rest import Rest, pair
from twincast.client.watch import Watch

__all__ = [
    "Backlog",
    "Change",
    "Client",
    "Gap",
    "Link",
    "Obeying",
    "Rest",
    "Twin",
    "Watch",
    "connect",
    "error_of",
    "http_url",
    "pair",
]
