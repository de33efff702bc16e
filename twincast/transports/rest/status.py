"""REST: how the server is, and what the caller may do."""

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import asdict

from twincast.access.request import RequestFacts
from twincast.core.model import Epoch, Seq, TimeUtc
from twincast.core.opening import Opening
from twincast.core.rights import ANYONE
from twincast.core.space import Space
from twincast.core.subscription import EVERYTHING
from twincast.hub.hub import system_now_utc
from twincast.transports.answer import Answer
from twincast.transports.operation import Call, Operation
from twincast.transports.parts import Parts
from twincast.wire.messages import encode
from twincast.wire.problem import problem_of


class Status(Struct, kw_only=True):
    """How the server is."""

    ok: Annotated[bool, Meta(description="false while the journal stores nothing, or servers hold different logs")]
    devices_known: int
    websocket_clients_connected: Annotated[
        int,
        Meta(description="to all servers on the log together; also those that have not logged in or subscribed yet"),
    ]
    websocket_clients_here: Annotated[int, Meta(description="to the server that answers")]
    timestamp_utc: TimeUtc
    epoch: Epoch
    seq: Seq
    uptime_s: float
    version: str
    edge: Annotated[str, Meta(description="picows or portable")]
    identity: Annotated[str, Meta(description="who you are: anonymous, key:… or jwt:…")]
    rights: Annotated[dict[str, list[str]], Meta(description="patterns of devices, by what you may do to them")]
    journal: Annotated[str, Meta(description="for administrators")] | UnsetType = UNSET
    space: Annotated[Space, Meta(description="for administrators")] | UnsetType = UNSET
    problem: Annotated[str, Meta(description="why ok is false")] | UnsetType = UNSET
    servers: Annotated[int, Meta(description="on a shared log, how many there are")] | UnsetType = UNSET
    as_of_utc: (
        Annotated[TimeUtc, Meta(description="while a shared log cannot be reached: since when what is read may be old")]
        | UnsetType
    ) = UNSET


class UnreadyStatus(Status, kw_only=True):
    """How a server is that is not ready: what a status has, as far as it is known, and the fields of Problem."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    retryable: bool
    at_seq: Annotated[int, Meta(description="the newest entry of the log that it has read")]
    of_seq: Annotated[int, Meta(description="the newest that there was when it began; 0 while that is not known")]


def operations(parts: Parts) -> tuple[Operation, ...]:
    """Return the call for the status."""
    status = _Status(parts)
    return (
        Operation(
            "GET",
            "/api/status",
            status.status,
            (Status,),
            unready=status.unready,
            unready_shape=UnreadyStatus,
            details="Before the server is ready: 503, with all of these and how far it is.",
        ),
    )


class _Status:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def status(self, call: Call) -> Answer:
        """Say how the server is, and what you may do."""
        hub, admission = self._parts.hub, self._parts.admission
        principal = call.caller.principal
        devices = await hub.reads.count(EVERYTHING.inside(principal.readable), admission.limits.budget(call.caller))
        admission.recheck(principal)
        servers, here = self._parts.servers, len(self._parts.sessions)
        problem = _problem(self._parts)
        status = Status(
            ok=not problem,
            devices_known=devices,
            websocket_clients_connected=here + (servers.clients_elsewhere() if servers else 0),
            websocket_clients_here=here,
            timestamp_utc=hub.now_utc(),
            epoch=hub.state.epoch,
            seq=hub.state.seq,
            uptime_s=round(hub.uptime_s, 3),
            version=self._parts.version,
            edge=self._parts.edge.name,
            identity=principal.id,
            rights=principal.rights.described(),
        )
        if principal.may_at_all("admin"):
            status.journal = self._parts.journal
            status.space = hub.space()
        if servers is not None:
            status.servers = len(servers.members())
            status.as_of_utc = servers.as_of_utc or UNSET
        if problem:
            status.problem = problem
        return Answer(encode(status))

    def unready(self, facts: RequestFacts, opening: Opening) -> UnreadyStatus:
        """Say how far a server is that is not ready, to anyone: so the reason in full only to programs beside it."""
        parts = self._parts
        error = parts.not_ready(opening)
        is_beside = parts.admission.neighbour(facts) is not None
        return UnreadyStatus(
            **asdict(problem_of(error)),
            ok=False,
            devices_known=0,
            websocket_clients_connected=len(parts.sessions),
            websocket_clients_here=len(parts.sessions),
            timestamp_utc=system_now_utc(),
            epoch="",
            seq=opening.at_seq,
            uptime_s=0.0,
            version=parts.version,
            edge=parts.edge.name,
            identity=ANYONE.id,
            rights={},
            problem=f"the server is not ready: {opening}" if is_beside else error.message,
            at_seq=opening.at_seq,
            of_seq=opening.of_seq,
        )


def _problem(parts: Parts) -> str:
    """Return why the server is not well; empty if it is."""
    if parts.problem is not None:
        return parts.problem.message
    return "" if parts.servers is None else parts.servers.problem
