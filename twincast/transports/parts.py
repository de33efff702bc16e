"""The parts that every edge works with: one typed object, from the application's start to its end."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from twincast.access.admission import Admission
from twincast.core.keys import AccessStore
from twincast.delivery.feed import Feed
from twincast.delivery.session import Limits, Session
from twincast.errors import JournalUnavailable, NotStarted
from twincast.hub.hub import Hub

logger = logging.getLogger("twincast")

PICOWS, PORTABLE = "picows", "portable"
IN_STATE = "twincast"
"""Under this name the parts are in the lifespan's state, where edges outside of the application find them."""
IDLE = (
    "twincast was not started here, or has ended: an application that mounts it needs one line more,"
    " `FastAPI(lifespan=twin.lifespan)`, or in a lifespan of its own `async with twin.running():`;"
    " docs/inside.md has both"
)
"""The error where nothing runs the lifespan; a mounted application's does not run by itself."""


@dataclass
class EdgeInUse:
    """Which WebSocket edge serves: first the one that was chosen, then the one that served the newest connection.

    Under an ASGI server its command line chooses, and the application is not told.
    """

    name: str


@dataclass(frozen=True, kw_only=True)
class RequestLimits:
    """What one REST request may hold."""

    body_max_bytes: int
    updates_max: int


@dataclass(kw_only=True, eq=False)
class Parts:
    """What the edges share. Routes exist before the hub opens, so `hub` raises until it has."""

    admission: Admission
    limits: Limits
    request_limits: RequestLimits
    edge: EdgeInUse
    version: str
    journal: str
    """The journal's URL."""
    root_path: str = ""
    """The prefix that a proxy has put before all paths, by the settings."""
    sessions: set[Session] = field(default_factory=set)
    """The WebSocket clients that are connected, on either edge."""
    event_feeds: set[Feed] = field(default_factory=set)
    """The feeds of the event streams that are open."""
    open_responses: set[Callable[[], None]] = field(default_factory=set)
    """Ends each event stream that is open, and each poll that waits."""
    _hub: Hub | None = field(default=None, init=False)
    _access: AccessStore | None = field(default=None, init=False)
    _is_idle_noted: bool = field(default=False, init=False)

    @property
    def hub(self) -> Hub:
        """The hub.

        Raises:
            NotStarted: the lifespan does not run.
        """
        if self._hub is None:
            if not self._is_idle_noted:
                self._is_idle_noted = True
                logger.error(IDLE)
            raise NotStarted(IDLE)
        return self._hub

    @property
    def access(self) -> AccessStore:
        """The store of the keys and the audit trail. Raises what `hub` raises."""
        _ = self.hub
        assert self._access is not None
        return self._access

    @property
    def problem(self) -> JournalUnavailable | None:
        """Why the disk of the log, or of the keys, does not serve at the moment. Raises what `hub` raises."""
        return self.hub.intake.failure or self.access.problem

    @property
    def is_running(self) -> bool:
        """Whether there is a hub now."""
        return self._hub is not None

    @property
    def is_ready(self) -> bool:
        """Whether what is accepted now is stored."""
        return self.is_running and self.problem is None

    def open(self, hub: Hub, access: AccessStore) -> None:
        """Serve this hub, to those whom this store lets in, from now on."""
        self._hub, self._access = hub, access

    def close(self) -> None:
        """Serve no hub any more."""
        self._hub = self._access = None

    def end_responses(self) -> None:
        """End every event stream and every poll that waits: a server that stops would wait for them."""
        for end in tuple(self.open_responses):
            end()


def parts_in(state: Mapping[str, Any]) -> Parts:
    """Return the parts that a lifespan has put into its state."""
    parts = state[IN_STATE]
    assert isinstance(parts, Parts)
    return parts
