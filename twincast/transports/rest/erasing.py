"""REST: deletions of devices with their history, and what still has some of it."""

from typing import Annotated

from msgspec import Meta, Struct

from twincast.core.erasure import Erasure, HeldBy
from twincast.core.model import Deleted, DeviceId, Epoch, Seq, TimeUtc
from twincast.core.names import check_id
from twincast.core.pattern import pattern_set
from twincast.core.subscription import EVERYWHERE
from twincast.errors import ValidationFailed
from twincast.history.query import Names
from twincast.transports.answer import Answer
from twincast.transports.documents import parameters
from twincast.transports.operation import Call, Operation
from twincast.transports.parts import Parts
from twincast.transports.rest import storing
from twincast.transports.rest.asking import exactly, no_such_device
from twincast.transports.rest.storing import Storing
from twincast.wire.messages import encode
from twincast.wire.query import decode_query

ACCEPTED = 202
Pending = Annotated[
    list[HeldBy],
    Meta(
        description="what still has some of it, though no answer does: `files`, those of the server that answers, while"
        " it writes them anew; `stream`, a shared log's, until two servers have what came up to the deletion. Empty"
        " once it is erased here"
    ),
]


class HistoryDeletion(Struct):
    """The answer to the deletion of a history, once that is durable and no answer has anything of it any more."""

    ok: bool
    deleted: bool
    event: Deleted
    pending: Pending


class PendingErasure(Struct):
    """A deletion of a history that is not carried out everywhere."""

    device_id: DeviceId
    seq: Annotated[Seq, Meta(description="of the deletion: what was before it is erased")]
    timestamp_utc: TimeUtc
    pending: Pending


class PendingErasures(Struct):
    """The deletions of histories that are not carried out everywhere, of the devices that you may administer."""

    epoch: Epoch
    erasures: list[PendingErasure]


def operations(parts: Parts) -> tuple[Operation, ...]:
    """Return the calls that delete histories."""
    erasing = _Erasing(parts)
    in_path, in_query = parameters.DEVICE_IN_PATH, parameters.DEVICE_IN_QUERY
    return (
        Operation(
            "DELETE",
            "/api/data/{device_id}/history",
            erasing.erase_device_history,
            (HistoryDeletion,),
            parameters=(in_path, *storing.PARAMETERS),
            success=ACCEPTED,
        ),
        Operation(
            "DELETE",
            "/api/history",
            erasing.erase_history,
            (HistoryDeletion,),
            parameters=(in_query, *storing.PARAMETERS),
            success=ACCEPTED,
        ),
        Operation("GET", "/api/erasures", erasing.erasures, (PendingErasures,), body_shapes=(PendingErasure,)),
    )


class _Erasing:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._storing = Storing(parts)

    async def erase_device_history(self, call: Call) -> Answer:
        """Delete a device with its history, for good.

        Its newest state goes, and all that the log has of it: readings, late ones too, and commands to it. From the
        answer on nobody gets anything of that; each server then writes its files anew without it, and `pending` says
        what still has some of it. It needs the right `admin` on the device. What the device sends later is new. The
        name is one segment of the path, percent-encoded: a `/` in it is written `%2F`.
        """
        if call.query:
            raise ValidationFailed("the device stands in the path; this address has no parameters")
        return await self._erase(call.name, call)

    async def erase_history(self, call: Call) -> Answer:
        """Delete the one device that the query names with its history, for good.

        The same as `DELETE /api/data/{device_id}/history`, for names that browsers and proxies change in a path.
        """
        names = decode_query(call.query, {"device_id"}).get("device_id", [])
        if len(names) != 1:
            raise ValidationFailed(
                f"`device_id` names the one device whose history is deleted; this address has {len(names)}"
            )
        return await self._erase(names[0], call)

    async def erasures(self, call: Call) -> Answer:
        """Return the deletions of histories that are not carried out everywhere, as this server knows it.

        One that is not here any more is carried out: nothing of what it took is in the files of this server, nor in
        the stream of a shared log. It needs the right `admin`.
        """
        principal = call.caller.principal
        principal.require_at_all("admin")
        decode_query(call.query, ())
        found = await self._parts.hub.erasures()
        self._parts.admission.recheck(principal)
        told = [
            PendingErasure(each.device_id, each.seq, each.at_utc, list(each.held_by))
            for each in found
            if principal.may("admin", each.device_id)
        ]
        return Answer(encode(PendingErasures(self._parts.hub.state.epoch, told)))

    async def _erase(self, name: str, call: Call) -> Answer:
        check_id(name, "`device_id`")
        call.caller.principal.require("admin", name)
        await self._check_known(name, call)
        draft = Deleted(name, "", "rest", scope="history")
        event, replayed = await self._storing.store_one(draft, call)
        held_by = [list(each.held_by) for each in await self._parts.hub.erasures() if _is_of(each, event)]
        answer = HistoryDeletion(ok=True, deleted=True, event=event, pending=held_by[0] if held_by else [])
        return storing.answered(answer, replayed=replayed)._replace(status=ACCEPTED)

    async def _check_known(self, name: str, call: Call) -> None:
        """Do nothing for a device that the state has, or of which the log holds an entry.

        Raises:
            NoSuchDevice: it is none.
        """
        if name in self._parts.hub.state.twins:
            return
        names = Names(exactly(name), pattern_set(EVERYWHERE))
        budget = self._parts.admission.limits.begin_reading(call.caller)
        if not await self._parts.past.ask(lambda history: history.names(names), budget):
            raise no_such_device(name)


def _is_of(erasure: Erasure, event: Deleted) -> bool:
    return erasure.seq == event.seq
