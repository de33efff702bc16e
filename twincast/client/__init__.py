"""Talk to a server from Python: readings and commands out, events and the state in.

    async with connect("http://127.0.0.1:8000") as client:
        await client.publish("lab/thermometer", 21.5)  # returns once it is on the server's disk
        async for event in client.watch("lab/*"):
            print(event.device_id, event.value)

The connection keeps itself alive: it reconnects after a loss, resumes where it was, and sends again what was not
acknowledged. `twincast.client.sync` has the same without asyncio, `Rest` by single requests.
docs/client.md is the guide.
"""

from typing import TYPE_CHECKING

from twincast.later import names

if TYPE_CHECKING:
    from twincast.client.address import http_url
    from twincast.client.client import Client
    from twincast.client.events import Command, Deletion, Event, Gap, LateReading, Reading, Twin
    from twincast.client.failures import error_of
    from twincast.client.history import Buckets, History, PastEntry, StateAt
    from twincast.client.link import Link
    from twincast.client.listener import CommandListener
    from twincast.client.opening import connect
    from twincast.client.outgoing import Backlog
    from twincast.client.rest import Rest, pair
    from twincast.client.watch import Watch
else:
    __getattr__ = names(
        __name__,
        {
            "Backlog": "outgoing",
            "Buckets": "history",
            "Client": "client",
            "Command": "events",
            "CommandListener": "listener",
            "Deletion": "events",
            "Event": "events",
            "Gap": "events",
            "History": "history",
            "LateReading": "events",
            "Link": "link",
            "PastEntry": "history",
            "Reading": "events",
            "Rest": "rest",
            "StateAt": "history",
            "Twin": "events",
            "Watch": "watch",
            "connect": "opening",
            "error_of": "failures",
            "http_url": "address",
            "pair": "rest",
        },
    )

__all__ = [
    "Backlog",
    "Buckets",
    "Client",
    "Command",
    "CommandListener",
    "Deletion",
    "Event",
    "Gap",
    "History",
    "LateReading",
    "Link",
    "PastEntry",
    "Reading",
    "Rest",
    "StateAt",
    "Twin",
    "Watch",
    "connect",
    "error_of",
    "http_url",
    "pair",
]


def __dir__() -> list[str]:
    return __all__
