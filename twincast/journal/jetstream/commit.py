"""One message of a shared log: a commit of one server, as JSON.

    {"by":"9f2c41d07be85a13","n":17,"server":"hall-2","after":4096,
     "runs":[{"kind":"data_update","source":"rest","subjects":["lab/t","lab/h"],"payloads":[21.5,40]},
             {"kind":"control","source":"websocket","subjects":["lab/fan"],"payloads":[{"rpm":900}],"details":["spin"]}],
     "attached":[{"first":0,"last":1,"key":["request\u001fab12","9f86d081884c7d659a2feaa0c55ad015"]},
                 {"first":2,"last":2,"actor":["key:ab12","203.0.113.7"]}]}

A run is neighbours of one kind that came by one way, in columns, so a commit is shorter than what its senders sent.
Readings that claim when they were measured have one more column, `"claims":["2026-11-27T04:16:09.000000+00:00",""]`.
Positions and times stand in no message: they are given where it is folded. But a log that is moved here from elsewhere
brings the times of its entries, `"times":[["2026-11-27T04:16:10.000000+00:00",3]]`, and what it has beside them.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any, cast

import msgspec
from msgspec import Raw, Struct

from twincast.core.audit import CommandOrigin
from twincast.core.batch import Batch
from twincast.core.model import DataUpdate, Deleted, Entry, Erased, Source
from twincast.core.times import read_time
from twincast.errors import BadTime, JournalUnusable
from twincast.journal.jetstream.columns import Columns, Given, Readings
from twincast.journal.sqlite.entries import COLUMNS
from twincast.journal.sqlite.entries import Columns as ColumnsOfKind

FOLD_VERSION = 3
"""Of the rules in `fold`, and of this format. What an older version folds in the same way is written as of that, so
that servers of both go on together until a reading claims when it was measured, or a history is erased."""
HEAD_BYTES = 1_024
"""What a commit may take beside its entries' text and what is attached to them."""
ATTACHED_BYTES = 512
"""What is attached to one submission takes at most about so much: a key, an identity, an address."""


_SQLITE_MAX = (1 << 63) - 1
_FIRST_WITH_CLAIMS = 2
_FIRST_WITH_ERASURES = 3


class Run(Struct, omit_defaults=True, gc=False):
    """Neighbouring entries of one kind and source, by column."""

    kind: str
    source: str
    subjects: list[str]
    payloads: list[Raw] = []
    """Of kinds that have one."""
    details: list[str] = []
    """Of kinds that have one."""
    claims: list[str] = []
    """When readings claim to have been measured, each in its stored form, or empty; none at all if none claims it."""


class Attached(Struct, omit_defaults=True, gc=False):
    """What one submission brings beside its entries; with these it is stored, or it is not."""

    first: int
    """The place of its first entry in the commit, from 0."""
    last: int
    key: tuple[str, str] | None = None
    """An idempotency key, and the digest of what it stands for."""
    actor: tuple[str, str] | None = None
    """For the audit trail: the identity and its address."""
    line: tuple[str, str, int] | None = None
    """The identity, name and number of a producer's line."""
    server: str = ""
    """Of a moved log: who took it there; empty for the writer of the commit."""


class Carried(Struct, omit_defaults=True, gc=False):
    """What a log that is moved here has beside its entries: in as many commits as it takes."""

    since: int = 0
    """The log goes on behind this position; what was before it was trimmed."""
    twins: list[tuple[str, Raw, str, str, int]] = []
    """Of the state as of `since`, what it takes to fold the rest: device, value, time, source and position."""
    claims: list[tuple[str, str]] = []
    """Of the devices in `twins`, those whose readings claim when they were measured, and when."""
    deletions: list[tuple[str, str, int]] = []
    """Devices that were deleted up to `since`: when, and the position; in the order of that."""
    keys: list[tuple[str, int, int, str]] = []
    """Idempotency keys, oldest first: the key, its first and last entry, its digest."""
    marks: list[tuple[str, str, int, int, str]] = []
    """Up to where producers' lines are stored, in the order of their positions: identity, producer, line, position, and
    which before it are missing, in hexadecimal."""


class Fork(Struct, gc=False):
    """That the log has lost its end: from here on it is another generation of it."""

    was: str
    """The generation that is over; if it is not the one that runs, this changes nothing."""
    becomes: str


class Commit(Struct, omit_defaults=True, gc=False):
    """The message."""

    by: str
    """The writer: random, new with each start of a server."""
    n: int
    """The writer's number for it, growing. One that is not above the last is a copy, or was given up."""
    server: str = ""
    """The writer's name, for people."""
    after: int = 0
    """How far the writer was, in entries. A hint: nothing is decided by it."""
    fold: int = 1
    """By which version of the rules it is folded."""
    runs: list[Run] = []
    attached: list[Attached] = []
    fork: Fork | None = None
    times: list[tuple[str, int]] = []
    """Of a moved log: its times, each with how many of the entries have it. They are stored, whatever is known."""
    carried: Carried | None = None

    @property
    def count(self) -> int:
        """How many entries it has."""
        return sum(len(run.subjects) for run in self.runs)

    @property
    def is_plain(self) -> bool:
        """Whether it has readings of one way and of the commit's time, without claims, and nothing else."""
        if len(self.runs) != 1 or self.times:
            return False
        run = self.runs[0]
        return run.kind == DataUpdate.kind and not run.claims

    @property
    def has_claims(self) -> bool:
        """Whether a reading claims when it was measured."""
        return any(run.claims for run in self.runs)


_decode = msgspec.json.Decoder(Commit).decode
_version_of = msgspec.json.Decoder(dict[str, Any]).decode
encode_commit = msgspec.json.Encoder().encode


def decode_commit(data: bytes) -> Commit:
    """Read a message.

    Raises:
        JournalUnusable: it is of a newer version, or not of twincast.
    """
    try:
        commit = _decode(data)
    except (msgspec.MsgspecError, RecursionError):
        commit = None
    if commit is None or commit.fold > FOLD_VERSION or not _is_whole(commit):
        raise JournalUnusable(
            "the log holds what this version of twincast does not know: it is of a newer one, which must be installed"
            " here too, or another program writes to its subjects"
        )
    return commit


def _is_whole(commit: Commit) -> bool:
    place = 0
    for attached in commit.attached:
        if not place <= attached.first <= attached.last:
            return False
        place = attached.last + 1
    if place > commit.count:
        return False
    if not all(map(_is_whole_run, commit.runs)) or commit.fold < _least_version(commit.runs):
        return False
    return _has_times(commit) and (commit.carried is None or _can_be_carried(commit.carried))


def _is_whole_run(run: Run) -> bool:
    columns = COLUMNS.get(run.kind)
    if columns is None:
        return False
    count = len(run.subjects)
    if len(run.payloads) != (count if columns.payload is not None else 0):
        return False
    if columns.may_lack_detail and not run.details:
        return _has_claims(run, columns)
    return len(run.details) == (count if columns.detail is not None else 0) and _has_claims(run, columns)


def _has_claims(run: Run, columns: ColumnsOfKind) -> bool:
    if not run.claims:
        return not columns.must_claim
    if not columns.may_claim or len(run.claims) != len(run.subjects):
        return False
    return all(_is_claim(claim) if claim else not columns.must_claim for claim in run.claims)


def _is_claim(text: str) -> bool:
    try:
        return read_time(text, "a claim") == text
    except BadTime:
        return False


def _has_times(commit: Commit) -> bool:
    if not commit.times:
        return True
    if sum(count for _, count in commit.times) != commit.count or any(count < 1 for _, count in commit.times):
        return False
    try:
        return all(datetime.fromisoformat(at_utc).tzinfo is not None for at_utc, _ in commit.times)
    except ValueError:
        return False


def _can_be_carried(carried: Carried) -> bool:
    try:
        missing = [int(mark[4], 16) for mark in carried.marks]
    except ValueError:
        return False
    if min(missing, default=0) < 0 or not all(0 < seq <= carried.since for *_, seq in carried.twins):
        return False
    if not all(0 < seq <= carried.since for *_, seq in carried.deletions):
        return False
    if not all(_is_claim(claim) for _, claim in carried.claims):
        return False
    numbers = [carried.since, *(number for _, first, last, _ in carried.keys for number in (first, last))]
    numbers += [number for _, _, line, seq, _ in carried.marks for number in (line, seq)]
    return all(0 <= number <= _SQLITE_MAX for number in numbers)


def commit_of(batch: Batch, by: str, n: int, *, server: str, after: int, version: int = _FIRST_WITH_CLAIMS) -> Commit:
    """Return the message of a batch.

    Args:
        batch: it.
        by: the writer.
        n: the writer's number.
        server: the writer's name.
        after: how far the writer is, in entries.
        version: of the rules that the log has come to: a deletion is no reason to stop servers that know no later ones.
    """
    entries = batch.entries
    if all(type(entry) is DataUpdate for entry in entries) and len({entry.source for entry in entries}) == 1:
        runs = [_run_of(entries, may_claim=batch.has_claims)]  # as nearly always
    else:
        runs = [_run_of(list(run)) for _, run in groupby(entries, lambda entry: (entry.kind, entry.source))]
    attached = [
        Attached(
            places[0],
            places[-1],
            key=None if key is None else (key.key, key.digest),
            actor=None if actor is None else (actor.who, actor.address),
            line=None if line is None else (line.identity, line.producer, line.number),
        )
        for places, key, actor, line in batch.attached()
    ]
    return Commit(by, n, server, after, _version_of_runs(runs, version), runs=runs, attached=attached)


def commit_of_moved(entries: Sequence[Entry], origins: Iterable[CommandOrigin], by: str, n: int) -> Commit:
    """Return the message of neighbouring entries of a log that is moved here, with who sent which of its commands."""
    first_seq = entries[0].seq
    runs = [_run_of(list(run)) for _, run in groupby(entries, lambda entry: (entry.kind, entry.source))]
    attached = [
        Attached(seq - first_seq, seq - first_seq, actor=(who, address), server=server)
        for seq, who, address, server in origins
    ]
    times = [(at_utc, sum(1 for _ in same)) for at_utc, same in groupby(entry.timestamp_utc for entry in entries)]
    version = _version_of_runs(runs, _FIRST_WITH_CLAIMS)
    return Commit(by, n, "", first_seq - 1, version, runs=runs, attached=attached, times=times)


def commit_of_carried(carried: Carried, by: str, n: int) -> Commit:
    """Return the message of what a log that is moved here has beside its entries."""
    return Commit(by, n, fold=_FIRST_WITH_CLAIMS if carried.claims or carried.deletions else 1, carried=carried)


def _version_of_runs(runs: Sequence[Run], version: int) -> int:
    least = _least_version(runs)
    return max(least, version) if any(run.kind == Deleted.kind for run in runs) else least


def _least_version(runs: Sequence[Run]) -> int:
    """Return the first version of the rules that folds these."""
    if any(run.kind == Erased.kind or (run.kind == Deleted.kind and any(run.details)) for run in runs):
        return _FIRST_WITH_ERASURES
    return _FIRST_WITH_CLAIMS if any(run.claims for run in runs) else 1


def _run_of(entries: Sequence[Entry], *, may_claim: bool = True) -> Run:
    first = entries[0]
    columns = COLUMNS[first.kind]
    return Run(
        first.kind,
        first.source,
        [entry.subject for entry in entries],
        [] if columns.payload is None else [entry.payload for entry in entries],
        [] if columns.detail is None else _details_of(entries, columns),
        _claims_of(entries) if columns.may_claim and may_claim else [],
    )


def _details_of(entries: Sequence[Entry], columns: ColumnsOfKind) -> list[str]:
    details = [entry.detail for entry in entries]
    return details if any(details) or not columns.may_lack_detail else []


def _claims_of(entries: Sequence[Entry]) -> list[str]:
    claims = [entry.claim for entry in entries]
    return claims if any(claims) else []


def entries_of(commit: Commit, given: Given) -> Sequence[Entry]:
    """Return the entries of a commit of which all are stored."""
    if commit.is_plain:
        run = commit.runs[0]
        source = cast("Source", run.source)  # one that is new, perhaps
        return Readings(Columns(source, run.subjects, run.payloads, given))
    return list(_entries(commit, given))


def _entries(commit: Commit, given: Given) -> Iterator[Entry]:
    seq = given.seq
    for run in commit.runs:
        make = COLUMNS[run.kind].make
        for index, subject in enumerate(run.subjects):
            payload = bytes(run.payloads[index]).decode() if run.payloads else "null"
            detail = run.details[index] if run.details else None
            claim = run.claims[index] or None if run.claims else None
            yield make((seq, run.kind, subject, payload, detail, given.at_utc, run.source, claim), given.epoch)
            seq += 1
