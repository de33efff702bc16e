"""REST: the servers on the log, as the one that answers knows them."""

import asyncio
import os
import weakref
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Annotated, BinaryIO

from msgspec import UNSET, Meta, Struct, UnsetType

from twincast.core.model import Epoch, Seq, TimeUtc
from twincast.core.peers import Heartbeat, Member, Servers
from twincast.errors import NotFound, NotPermitted, RateLimited
from twincast.transports.answer import Answer
from twincast.transports.operation import Call, Operation
from twincast.transports.parts import Parts
from twincast.wire.messages import encode
from twincast.wire.query import decode_query

SQLITE = "application/vnd.sqlite3"
PIECE_BYTES = 256 * 1024
COPY_AGAIN_S = 30.0
ALONE = "alone"
"""The id of a server that shares its log with no other."""


class ServerSeen(Struct, kw_only=True):
    """One server on the log, as of its newest heartbeat."""

    id: Annotated[str, Meta(description="of one run of the server")]
    name: str
    version: str
    since_utc: Annotated[TimeUtc, Meta(description="when it started")]
    epoch: Epoch
    seq: Seq
    behind_entries: Annotated[int, Meta(description="how many entries the newest server has that it has not")]
    behind_messages: Annotated[int, Meta(description="the same in messages of the stream")]
    behind_s: Annotated[float, Meta(description="for how long there have been such entries, to about a second")]
    unstored_messages: Annotated[int, Meta(description="how many messages its own copy of the log is behind")]
    websocket_clients: int
    ready: Annotated[bool, Meta(description="whether what it accepts now is stored")]
    leaving: Annotated[bool, Meta(description="whether it stops, and has its clients go elsewhere")]
    same_settings: Annotated[bool, Meta(description="whether its limits and logins are those of the one that answers")]
    heard_s_ago: Annotated[float, Meta(description="how old this is")]


class Cluster(Struct, kw_only=True):
    """The servers on the log."""

    shared: Annotated[bool, Meta(description="whether other servers can be on this log")]
    answered_by: Annotated[str, Meta(description="the id of the server that answers")]
    servers: Annotated[list[ServerSeen], Meta(description="in the order in which they started")]
    problem: Annotated[str, Meta(description="what is wrong between them")] | UnsetType = UNSET


def operations(parts: Parts) -> tuple[Operation, ...]:
    """Return the calls for the servers."""
    servers = _Servers(parts)
    return (
        Operation("GET", "/api/cluster", servers.cluster, (Cluster,)),
        Operation("GET", "/api/cluster/copy", servers.copy, (), answer_type=SQLITE, is_between_servers=True),
    )


class _Servers:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._is_copying = False
        self._sending: weakref.ref[AsyncIterator[bytes]] | None = None

    async def copy(self, call: Call) -> Answer:
        """Return this server's copy of the log, an SQLite file, from which another server begins.

        Needs the right `admin` on `*`: it has everything, the digests of API keys and the audit trail too. One at a
        time.
        """
        _require_administrator(call)
        decode_query(call.query, ())
        servers = self._parts.servers
        if servers is None:
            raise NotFound("this server shares its log with no other; `twincast journal backup` copies it")
        if self._is_copying or (self._sending is not None and self._sending() is not None):
            raise RateLimited("another copy of the log is being taken from this server", COPY_AGAIN_S)
        self._is_copying = True
        try:
            file = await servers.copied()
        finally:
            self._is_copying = False
        pieces = _pieces(file)
        self._sending = weakref.ref(pieces)  # it lives until the answer is over, however that ends
        size_bytes = os.fstat(file.fileno()).st_size
        length = () if call.takes_gzip else ((b"content-length", b"%d" % size_bytes),)
        return Answer(pieces, length, content_type=SQLITE.encode())

    async def cluster(self, call: Call) -> Answer:
        """Return the servers on the log, how far each is, and which one answers.

        Needs the right `admin` on `*`. A server that shares its log with no other is the only one of its list.
        """
        _require_administrator(call)
        decode_query(call.query, ())
        servers = self._parts.servers
        return Answer(encode(self._alone() if servers is None else seen(servers)))

    def _alone(self) -> Cluster:
        parts, hub = self._parts, self._parts.hub
        now = datetime.fromisoformat(hub.now_utc())
        own = ServerSeen(
            id=ALONE,
            name=ALONE,
            version=parts.version,
            since_utc=(now - timedelta(seconds=hub.uptime_s)).isoformat(timespec="microseconds"),
            epoch=hub.state.epoch,
            seq=hub.state.seq,
            behind_entries=0,
            behind_messages=0,
            behind_s=0.0,
            unstored_messages=0,
            websocket_clients=len(parts.sessions),
            ready=parts.is_ready,
            leaving=False,
            same_settings=True,
            heard_s_ago=0.0,
        )
        return Cluster(shared=False, answered_by=ALONE, servers=[own])


async def _pieces(file: BinaryIO) -> AsyncIterator[bytes]:
    with file:
        while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
            yield piece


def _require_administrator(call: Call) -> None:
    principal = call.caller.principal
    if not principal.may_everywhere("admin"):
        raise NotPermitted(f"{principal.id} has no right to admin on `*`, which this needs")


def seen(servers: Servers) -> Cluster:
    """Return the servers on a shared log as they are shown."""
    members = servers.members()
    newest_seq = max(member.heartbeat.seq for member in members)
    newest_message = max(member.heartbeat.stream_seq for member in members)
    settings = next(member.heartbeat.settings for member in members if member.heartbeat.id == servers.own_id)

    def shown(member: Member) -> ServerSeen:
        told: Heartbeat = member.heartbeat
        return ServerSeen(
            id=told.id,
            name=told.name,
            version=told.version,
            since_utc=told.since_utc,
            epoch=told.epoch,
            seq=told.seq,
            behind_entries=newest_seq - told.seq,
            behind_messages=newest_message - told.stream_seq,
            behind_s=round(servers.behind_s(told.seq), 3),
            unstored_messages=max(0, told.stream_seq - told.stored_stream_seq),
            websocket_clients=told.clients,
            ready=told.ready,
            leaving=told.leaving,
            same_settings=told.settings == settings,
            heard_s_ago=round(max(0.0, servers.heard_s_ago(member)), 3),
        )

    return Cluster(
        shared=True,
        answered_by=servers.own_id,
        servers=[shown(member) for member in members],
        problem=servers.problem or UNSET,
    )
