"""REST: how the server is, and what the caller may do."""

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from twincast.core.model import Epoch, Seq, TimeUtc
from twincast.core.space import Space
from twincast.hub.hub import EVERYTHING
from twincast.transports.answer import Answer
from twincast.transports.operation import Call, Operation
from twincast.transports.parts import Parts
from twincast.wire.messages import encode


class Status(Struct):
    """How the server is."""

    ok: Annotated[bool, Meta(description="false while the journal stores nothing")]
    devices_known: int
    websocket_clients_connected: int
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


def operations(parts: Parts) -> tuple[Operation, ...]:
    """Return the call for the status."""
    return (Operation("GET", "/api/status", _Status(parts).status, (Status,)),)


class _Status:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def status(self, call: Call) -> Answer:
        """Say how the server is, and what you may do."""
        hub, admission = self._parts.hub, self._parts.admission
        principal = call.caller.principal
        devices = await hub.reads.count(EVERYTHING.inside(principal.readable), admission.limits.budget(call.caller))
        admission.recheck(principal)
        problem = self._parts.problem
        status = Status(
            ok=problem is None,
            devices_known=devices,
            websocket_clients_connected=len(self._parts.sessions),
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
        if problem is not None:
            status.problem = problem.message
        return Answer(encode(status))
