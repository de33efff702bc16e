"""REST: commands."""

from msgspec import Struct

from twincast.core.model import Control
from twincast.transports.answer import JSON, Answer
from twincast.transports.documents import shapes
from twincast.transports.operation import Call, Operation
from twincast.transports.parts import Parts
from twincast.transports.rest.storing import PARAMETERS, Storing, answered
from twincast.wire import requests
from twincast.wire.requests import CommandRequest


class Dispatched(Struct):
    """The answer to a command, once it is durable and sent to everyone who watches."""

    ok: bool
    dispatched: bool
    event: Control


_COMMAND = {
    "schema": shapes.reference(CommandRequest),
    "example": {"target": "device-1", "command": "set_interval", "args": {"seconds": 5}},
}


def operations(parts: Parts) -> tuple[Operation, ...]:
    """Return the call that sends a command."""
    run, body_max_bytes = _Control(parts).post_control, parts.request_limits.body_max_bytes
    return (
        Operation(
            "POST",
            "/api/control",
            run,
            (Dispatched,),
            {JSON: _COMMAND},
            (CommandRequest,),
            PARAMETERS,
            body_max_bytes,
        ),
    )


class _Control:
    def __init__(self, parts: Parts) -> None:
        self._storing = Storing(parts)

    async def post_control(self, call: Call) -> Answer:
        """Dispatch a command to everyone who watches.

        The answer comes once the command is on disk and on its way.
        """
        call.require_type(JSON)
        event, replayed = await self._storing.store_one(requests.decode_command(call.body, "rest"), call)
        return answered(Dispatched(ok=True, dispatched=True, event=event), replayed=replayed)
