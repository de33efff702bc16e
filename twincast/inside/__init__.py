"""Twincast inside an application of one's own: mounted, started and ended with it, and used without a socket.

    twin = Twincast("sqlite:lab.db")
    app = FastAPI(lifespan=twin.lifespan)
    app.mount("/twin", twin.app)

    await twin.publish("lab/lamp", {"on": True})

docs/inside.md is the guide.
"""

from twincast.inside.application import Twincast
from twincast.inside.party import Party
from twincast.inside.state import StateView

__all__ = ["Party", "StateView", "Twincast"]
