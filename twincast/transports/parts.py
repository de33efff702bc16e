"""The parts that every edge works with: one typed object, from the application's start to its end."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from twincast.access.admission import Admission
from twincast.core.keys import AccessStore
from twincast.core.opening import Opening
from twincast.core.peers import Servers
from twincast.delivery.feed import Feed
from twincast.delivery.session import Limits, Session
from twincast.errors import JournalUnavailable, LogReplaced, NotReady, NotStarted
from twincast.hub.hub import Hub
from twincast.hub.past import Past
from twincast.transports.nats import Counters

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
    sessions: dict[Session, None] = field(default_factory=dict)
    """The WebSocket clients that are connected, on either edge; a set would take three times as much memory."""
    event_feeds: set[Feed] = field(default_factory=set)
    """The feeds of the event streams that are open."""
    open_responses: set[Callable[[], None]] = field(default_factory=set)
    """Ends each event stream that is open, and each poll that waits."""
    nats: Counters | None = None
    """What is counted of NATS's subjects; None where there are none."""
    servers: Servers | None = None
    """The servers on a shared log, this one among them; None where the log is not shared."""
    stored_body_max_bytes: int | None = None
    """How large a body may be that is stored whole, where that is less than `request_limits` say: NATS's own limit."""
    is_leaving: bool = False
    """Whether the server is about to stop, and has its clients go to the others."""
    is_spread: bool = False
    """Whether, where there are others, whoever serves this ends the streams one after another; see `told_to_stop`."""
    watches_inside: set[Callable[[LogReplaced], None]] = field(default_factory=set)
    """Tells each watch of the program that has the server inside that its hub is no more."""
    opening: Opening | None = field(default=None, init=False)
    """How far the log is that is being opened; None once there is a hub, and where nothing was started."""
    _hub: Hub | None = field(default=None, init=False)
    _access: AccessStore | None = field(default=None, init=False)
    _past: Past | None = field(default=None, init=False)
    _is_idle_noted: bool = field(default=False, init=False)

    @property
    def hub(self) -> Hub:
        """The hub.

        Raises:
            NotStarted: the lifespan does not run.
            NotReady: its log is being opened.
        """
        if self._hub is None:
            if self.opening is not None:
                raise self.not_ready(self.opening)
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
    def past(self) -> Past:
        """The log's past. Raises what `hub` raises."""
        _ = self.hub
        assert self._past is not None
        return self._past

    @property
    def problem(self) -> JournalUnavailable | None:
        """Why the disk of the log, or of the keys, does not serve at the moment. Raises what `hub` raises."""
        return self.hub.problem or self.access.problem

    def not_ready(self, opening: Opening) -> NotReady:
        """Return what everybody is told while the log is being opened: a problem names addresses, and is left out."""
        why = "" if opening.problem is None else "; it cannot be reached at the moment"
        return NotReady(f"the server is not ready: {opening.so_far}{why}")

    @property
    def is_running(self) -> bool:
        """Whether there is a hub now."""
        return self._hub is not None

    @property
    def is_ready(self) -> bool:
        """Whether what is accepted now is stored, by a server that stays."""
        return self.is_running and self.problem is None and not self.is_leaving

    def expect(self, opening: Opening) -> None:
        """Serve no hub until `open`, and say meanwhile how far its log is."""
        self._hub = self._access = self._past = self.servers = None
        self.opening = opening

    def open(self, hub: Hub, access: AccessStore, servers: Servers | None = None, past: Past | None = None) -> None:
        """Serve a hub from now on.

        Args:
            hub: the hub.
            access: says who is let in.
            servers: the others, if the log is shared.
            past: the past of the hub's log; None where no operation asks for it.
        """
        self._hub, self._access, self.servers, self._past, self.opening = hub, access, servers, past, None

    def close(self) -> None:
        """Serve no hub any more."""
        self._hub = self._access = self._past = self.servers = self.opening = None

    async def leave(self) -> None:
        """Say to load balancers and to the other servers that this one is about to stop, and take no new streams."""
        self.is_leaving = self.admission.leases.is_closed = True
        if self.servers is not None:
            await self.servers.leave()

    def told_to_stop(self) -> None:
        """End the responses that have no end, unless whoever serves this spreads the ends over some time."""
        if not (self.is_spread and self.servers is not None and self.servers.others_stay):
            self.end_responses()

    def end_all(self, error: LogReplaced) -> None:
        """End whatever was served from a log that is no more: every connection, response and watch."""
        for session in tuple(self.sessions):
            session.stop(error)
        self.end_responses()
        for cut_off in tuple(self.watches_inside):
            cut_off(error)

    def end_responses(self) -> None:
        """End every event stream and every poll that waits: a server that stops would wait for them."""
        for end in tuple(self.open_responses):
            end()


def parts_in(state: Mapping[str, Any]) -> Parts:
    """Return the parts that a lifespan has put into its state."""
    parts = state[IN_STATE]
    assert isinstance(parts, Parts)
    return parts
