"""The stream of a shared log: made once, recognised ever after, and told from one that was put in its place.

A log's name is a hash of what was rolled when the stream was made and of when NATS made it. So it is another one after
the stream was deleted and made anew, or restored, and the same after a change of its leader or of its replicas.
"""

import asyncio
import base64
import contextlib
from datetime import UTC, datetime
from hashlib import sha256
from secrets import token_hex
from typing import Any, NamedTuple

from twincast.core.lineage import Generation
from twincast.errors import JournalUnavailable, JournalUnusable
from twincast.journal.jetstream.address import NatsAddress
from twincast.journal.jetstream.commit import FOLD_VERSION, Commit, Fork, decode_commit, encode_commit
from twincast.journal.jetstream.fold import Place
from twincast.journal.jetstream.link import ApiError, Link

OLDEST_NATS = (2, 14, 0)
"""Before this one a disk error did not stop a stream: it went on without what it had not written."""
CLOCKS_APART_MAX_S = 60.0
ASK_AGAIN_S = 1.0
"""So long NATS is given to agree on its leader, before it is asked again for a message that seems to be lost."""
DUPLICATE_WINDOW_NS = 120 * 10**9
EPOCH, FOLD = "twincast.epoch", "twincast.fold"
"""What the stream's metadata has."""
MOVING = "twincast.moving"
"""What it has besides, while a journal is being moved to it."""

NOT_FOUND, NO_MESSAGE, NAME_IN_USE, OVERLAPS = 10059, 10037, 10058, 10065
"""JetStream's numbers: there is no such stream, or message; another stream has the name, or the subjects."""
NOT_ON = frozenset({10039, 10076})
"""JetStream is not enabled, for this account."""


class StreamFacts(NamedTuple):
    """What NATS says of the stream."""

    log: str
    """The log's name."""
    generation: Generation
    """The first one."""
    first_seq: int
    last_seq: int
    replicas: int
    version: int
    """Of the rules that its first server knew."""
    holes: int = 0
    """How many messages lack behind the first one: commits that were trimmed, between changes of the keys that stay."""


async def open_stream(link: Link, address: NatsAddress) -> StreamFacts:
    """Return the facts of the stream; make it if there is none. Of those who try at once, one makes it.

    Raises:
        JournalUnusable: it is another program's, of a newer version, or cannot be made; the message says what to do.
        JournalUnavailable: NATS does not answer at the moment.
    """
    _check_version(link)
    try:
        return await stream_facts(link, address)
    except ApiError as error:
        _refuse_without_jetstream(address, error)
        if error.number != NOT_FOUND:
            raise
    try:
        await _make(link, address, {})
    except ApiError as error:
        if error.number != NAME_IN_USE:  # somebody made it just now
            raise _not_made(address, error) from None
    return await stream_facts(link, address)


async def required_stream(link: Link, address: NatsAddress) -> StreamFacts:
    """Return the facts of a stream that must be there.

    Raises:
        JournalUnusable: there is none; or see `stream_facts`.
        JournalUnavailable: NATS does not answer.
    """
    try:
        return await stream_facts(link, address)
    except ApiError as error:
        _refuse_without_jetstream(address, error)
        if error.number != NOT_FOUND:
            raise
        raise JournalUnusable(f"there is no log {address.name!r} at {', '.join(address.servers)}") from None


async def begin_move(link: Link, address: NatsAddress) -> None:
    """Make the stream for a journal that is moved to it: no server opens it before `end_move`.

    One that such a move has left unfinished, or that has nothing in it, is made anew.

    Raises:
        JournalUnusable: there is a log of that name, or it cannot be made; the message says what to do.
        JournalUnavailable: NATS does not answer.
    """
    _check_version(link)
    try:
        info = await link.ask(f"STREAM.INFO.{address.stream}")
    except ApiError as error:
        _refuse_without_jetstream(address, error)
        if error.number != NOT_FOUND:
            raise
    else:
        metadata = _metadata_of(info, address)
        if MOVING not in metadata and info["state"]["last_seq"]:
            raise JournalUnusable(
                f"there is a log {address.name!r} already, with something in it; move the journal to another name"
            )
        await link.ask(f"STREAM.DELETE.{address.stream}", timeout_s=5.0)
    try:
        await _make(link, address, {MOVING: "1"})
    except ApiError as error:
        raise _not_made(address, error) from None


async def end_move(link: Link, address: NatsAddress) -> None:
    """Let servers open a stream that a journal was moved to, now that all of it is there.

    Raises:
        JournalUnavailable: NATS does not take it; the stream is as it was.
    """
    config = (await link.ask(f"STREAM.INFO.{address.stream}"))["config"]
    config["metadata"].pop(MOVING, None)
    await link.ask(f"STREAM.UPDATE.{address.stream}", config, timeout_s=5.0)


async def _make(link: Link, address: NatsAddress, metadata: dict[str, str]) -> None:
    config = _config(address, address.replicas or (3 if link.is_clustered else 1))
    config["metadata"] |= metadata
    await link.ask(f"STREAM.CREATE.{address.stream}", config, timeout_s=5.0)


def _refuse_without_jetstream(address: NatsAddress, error: ApiError) -> None:
    if error.number in NOT_ON:
        raise JournalUnusable(f"NATS at {address.servers[0]} runs without JetStream; start it with `-js`") from None


def _not_made(address: NatsAddress, error: ApiError) -> JournalUnusable | JournalUnavailable:
    if error.number == OVERLAPS:
        return JournalUnusable(
            f"another stream of NATS has subjects of the log {address.name!r}; name the log otherwise"
        )
    return JournalUnavailable(f"the stream {address.stream} cannot be made: {error.description}")


async def stream_facts(
    link: Link, address: NatsAddress, *, is_moving: bool = False, is_serving: bool = False
) -> StreamFacts:
    """Return the facts of the stream.

    Args:
        link: the connection.
        address: the log.
        is_moving: whether the caller is the one that moves a journal to it.
        is_serving: whether the caller serves the log already: a clock that jumps ends no server, for the times of
            entries are the stream's.

    Raises:
        ApiError: there is none.
        JournalUnusable: it is another program's, of a newer version, or not whole yet; or clocks are too far apart.
        JournalUnavailable: NATS does not answer.
    """
    info = await link.ask(f"STREAM.INFO.{address.stream}")
    config, state = info["config"], info["state"]
    metadata = _metadata_of(info, address)
    if MOVING in metadata and not is_moving:
        raise JournalUnusable(
            f"a journal is being moved to the log {address.name!r}, or that was interrupted: `twincast journal move`"
            " begins it again"
        )
    version = metadata.get(FOLD, "")
    if not version.isdigit() or int(version) > FOLD_VERSION:
        raise JournalUnusable(
            f"the log {address.name!r} is of version {version[:8]}, of a newer twincast; this one reads {FOLD_VERSION}"
        )
    if not is_serving:
        _check_clock(info.get("ts"))
    name = sha256(f"{metadata[EPOCH]} {info['created']}".encode()).hexdigest()
    return StreamFacts(
        name[:8],
        Generation(name[8:16], 0),
        state["first_seq"],
        state["last_seq"],
        config["num_replicas"],
        int(version),
        state.get("num_deleted", 0),
    )


def _metadata_of(info: dict[str, Any], address: NatsAddress) -> dict[str, str]:
    config = info["config"]
    metadata: dict[str, str] = config.get("metadata") or {}
    if EPOCH not in metadata or not {address.log_subject, address.keys_subject} <= set(config.get("subjects") or ()):
        raise JournalUnusable(
            f"NATS has a stream {address.stream} that is not twincast's; name the log otherwise, or remove the stream"
        )
    return metadata


async def has_message(link: Link, address: NatsAddress, facts: StreamFacts, place: Place) -> bool:
    """Whether the stream holds what was folded up to a place, as far as it can be seen.

    Raises:
        JournalUnavailable: NATS does not answer.
    """
    if place.stream_seq > facts.last_seq:
        return False
    if place.stream_seq < max(1, facts.first_seq):  # nothing was folded yet, or it was trimmed since
        return True
    try:
        message = (await link.ask(f"STREAM.MSG.GET.{address.stream}", {"seq": place.stream_seq}))["message"]
    except ApiError as error:
        if error.number == NO_MESSAGE:  # nobody can delete one, and trimming takes them from the beginning on
            return facts.holes > 0 and place.stream_seq < await first_commit(link, address, facts)
        raise
    return nanoseconds(message["time"]) == place.stamp_ns


async def begins_at(link: Link, address: NatsAddress, facts: StreamFacts, place: Place) -> int | None:
    """Return where the stream begins, if it was trimmed beyond a place: what follows that is not there any more.

    None if it is all there.

    Raises:
        JournalUnavailable: NATS does not answer.
    """
    if facts.first_seq > place.stream_seq + 1:
        return facts.first_seq
    if not facts.holes:
        return None
    first = await first_commit(link, address, facts)
    for stream_seq in range(place.stream_seq + 1, first):  # changes of the keys, or what was trimmed
        try:
            await link.ask(f"STREAM.MSG.GET.{address.stream}", {"seq": stream_seq})
        except ApiError as error:
            if error.number == NO_MESSAGE:
                return first
            raise
    return None


async def first_commit(link: Link, address: NatsAddress, facts: StreamFacts) -> int:
    """Return the place of the oldest commit, behind which nothing lacks; the place behind all if there is none."""
    body = {"seq": 1, "next_by_subj": address.log_subject}
    try:
        return int((await link.ask(f"STREAM.MSG.GET.{address.stream}", body))["message"]["seq"])
    except ApiError as error:
        if error.number == NO_MESSAGE:
            return facts.last_seq + 1
        raise


async def newest_after(link: Link, address: NatsAddress) -> int:
    """Return about where the log ends, in entries, as its newest commit says; 0 if that is not known.

    Raises:
        JournalUnavailable: NATS does not answer.
    """
    with contextlib.suppress(ApiError, JournalUnusable):
        body = {"last_by_subj": address.log_subject}
        message = (await link.ask(f"STREAM.MSG.GET.{address.stream}", body))["message"]
        commit = decode_commit(base64.b64decode(message["data"]))
        return commit.after + commit.count
    return 0


async def fork(link: Link, address: NatsAddress, was: Generation, behind: int | None = None) -> None:
    """Note in the log that it has lost its end: everybody's positions are of another generation from here on.

    Args:
        link: the connection.
        address: the log.
        was: the generation that is over.
        behind: the newest message of the stream; None for whichever it is.

    Raises:
        JournalUnavailable: NATS does not take it, or the newest message is another one.
    """
    by = token_hex(8)
    commit = Commit(by, 1, fork=Fork(was.name, token_hex(4)))
    headers = {"Nats-Msg-Id": f"{by}:1"}
    if behind is not None:
        headers["Nats-Expected-Last-Sequence"] = str(behind)
    for _ in range(3):
        try:
            await link.store(address.log_subject, encode_commit(commit), headers=headers)
        except ApiError:
            raise
        except JournalUnavailable:
            await asyncio.sleep(0.2)
        else:
            return
    await link.store(address.log_subject, encode_commit(commit), headers=headers)


async def fork_if_cut(link: Link, address: NatsAddress, facts: StreamFacts, place: Place, was: Generation) -> bool:
    """Note in the log that it has lost its end, if it has; return whether it has.

    One of several NATS servers that was stopped, or cut off, takes itself for the leader until it hears of the next
    one, and tells of an older stream. So a stream that seems to end before the place is believed only with a message
    behind that end, which takes a majority; and a message that seems to be missing, when it is so again.

    Args:
        link: the connection.
        address: the log.
        facts: what NATS has said of the stream.
        place: up to where it was folded.
        was: the generation that runs there.

    Raises:
        JournalUnavailable: NATS does not answer, or it was not the leader who did.
    """
    if await has_message(link, address, facts, place):
        return False
    if place.stream_seq > facts.last_seq:
        await fork(link, address, was, behind=facts.last_seq)
        return True
    await asyncio.sleep(ASK_AGAIN_S)
    if await has_message(link, address, facts, place):
        return False
    await fork(link, address, was)
    return True


def nanoseconds(text: str) -> int:
    """Return a time of NATS, RFC 3339 with up to nine places, in nanoseconds since 1970."""
    second, _, fraction = text.removesuffix("Z").partition(".")
    at = datetime.fromisoformat(second).replace(tzinfo=UTC)
    return int(at.timestamp()) * 10**9 + int(fraction.ljust(9, "0"))


def _config(address: NatsAddress, replicas: int) -> dict[str, Any]:
    return {
        "name": address.stream,
        "description": "the log of twincast servers; only they may publish here",
        "subjects": [address.log_subject, address.keys_subject],
        "storage": "file",
        "num_replicas": replicas,
        "retention": "limits",
        "discard": "new",
        "compression": "none",  # with s2 a node that was killed may not read its own blocks again (NATS 2.15.1)
        "deny_delete": True,
        "allow_direct": True,
        "duplicate_window": DUPLICATE_WINDOW_NS,
        "metadata": {EPOCH: token_hex(16), FOLD: str(FOLD_VERSION)},
    }


def _check_version(link: Link) -> None:
    if link.version < OLDEST_NATS:
        raise JournalUnusable(
            f"NATS is of version {'.'.join(map(str, link.version))}; a log needs {'.'.join(map(str, OLDEST_NATS))} or"
            " newer, which stops at an error of its disk"
        )


def _check_clock(ts: str | None) -> None:
    if ts is None:
        return
    apart_s = nanoseconds(ts) / 1e9 - datetime.now(UTC).timestamp()
    if abs(apart_s) > CLOCKS_APART_MAX_S:
        raise JournalUnusable(
            f"the clock of NATS is {abs(apart_s):.0f} seconds {'ahead of' if apart_s > 0 else 'behind'} this machine's;"
            " its times are those of all entries, so set both, by NTP"
        )
