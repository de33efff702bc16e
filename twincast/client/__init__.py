"""Talk to a server from Python: readings and commands out, events and the state in.

    async with connect("http://127.0.0.1:8000") as client:
        await client.publish("lab/thermometer", 21.5)  # returns once it is on the server's disk
        async for event in client.watch("lab/*"):
            print(event.device_id, event.value)

The connection keeps itself alive: it reconnects after a loss, resumes where it was, and sends again what was not
acknowledged. `twincast.client.sync` has the same without asyncio, `Rest` by single requests.
docs/client.md is the guide.
"""

from twincast.client.address import http_url
from twincast.client.client import Client
from twincast.client.events import Command, Deletion, Event, Gap, Reading, Twin
from twincast.client.failures import error_of
from twincast.client.link import Link
from twincast.client.listener import CommandListener
from twincast.client.opening import connect
from twincast.client.outgoing import Backlog
from twincast.client.rest import Rest, pair
from twincast.client.watch import Watch

__all__ = [
    "Backlog",
    "Client",
    "Command",
    "CommandListener",
    "Deletion",
    "Event",
    "Gap",
    "Link",
    "Reading",
    "Rest",
    "Twin",
    "Watch",
    "connect",
    "error_of",
    "http_url",
    "pair",
]
