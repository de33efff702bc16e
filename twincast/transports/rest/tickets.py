"""REST: tickets, by which a browser opens an event stream."""

from msgspec import Struct

from twincast.access.tickets import REOPEN_S, TICKET_S
from twincast.transports.answer import JSON, Answer
from twincast.transports.operation import Call, Operation
from twincast.transports.parts import Parts
from twincast.wire.messages import encode


class Ticket(Struct):
    """What opens one event stream, once."""

    ticket: str
    expires_in_s: float


_NOTHING = {JSON: {"schema": {"type": "object"}, "example": {}}}
_TIMES = (
    f"It must be used within {TICKET_S:g} seconds, and opens the same stream again within {REOPEN_S:g} seconds of its"
    " end."
)
_LINKS = {
    "use": {
        "operationId": "poll",
        "parameters": {"ticket": "$response.body#/ticket"},
        "description": "what the ticket is for",
    }
}


def operations(parts: Parts) -> tuple[Operation, ...]:
    """Return the call for a ticket."""
    run = _Tickets(parts).post_ticket
    return (Operation("POST", "/api/tickets", run, (Ticket,), _NOTHING, links=_LINKS, details=_TIMES),)


class _Tickets:
    def __init__(self, parts: Parts) -> None:
        self._admission = parts.admission

    async def post_ticket(self, call: Call) -> Answer:
        """Give a ticket for an event stream.

        A browser's EventSource can send no credential. `/api/events?ticket=…` opens one stream, once, with the rights
        of the caller that asked for the ticket.
        """
        call.require_type(JSON)
        call.caller.principal.require_at_all("read")
        return Answer(encode(Ticket(self._admission.issue_ticket(call.caller), TICKET_S)))
