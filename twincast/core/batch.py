"""The entries of one commit, with all that belongs to them, and who waits to hear of their fate."""

from collections.abc import Collection, Sequence

from twincast.core.audit import Actor, CommandOrigin
from twincast.core.idempotency import IdempotencyKey, IdempotencyRecord, OnCommitted
from twincast.core.model import Entry
from twincast.core.producers import NumberedLine, ProducerId

ENTRY_BYTES = 256
"""What an entry that waits costs beside its text."""

Lane = object
"""Whose updates are to stay in order: a sender that asked for it, by identity. None for all others."""


class Batch:
    """What collects until the next commit. `keys`, `deeds` and `lines` count places from the batch's first entry, 0."""

    __slots__ = ("deeds", "entries", "keys", "leans", "lines", "size_bytes", "submissions")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.keys: list[IdempotencyRecord] = []
        self.deeds: list[CommandOrigin] = []
        self.lines: list[tuple[int, NumberedLine]] = []
        self.submissions: list[tuple[int, OnCommitted, Lane | None, str]] = []
        """For each submission: how many entries there are up to its last one, whom to tell, its lane and its sender."""
        self.size_bytes = 0
        self.leans = False
        """Whether something here was decided in the light of what came before: without that nothing here is stored."""

    def add(
        self,
        entries: Sequence[Entry],
        idempotency_key: IdempotencyKey | None = None,
        actor: Actor | None = None,
        line: NumberedLine | None = None,
    ) -> None:
        """Take the entries of one submission, which are stored all or none; `await_commit` follows."""
        first = len(self.entries)
        self.entries.extend(entries)
        last = len(self.entries) - 1
        if idempotency_key is not None:
            self.keys.append(IdempotencyRecord(idempotency_key.key, first, last, idempotency_key.digest))
        if line is not None:
            self.lines.append((first, line))
        if actor is not None:
            self.deeds.extend(CommandOrigin(place, *actor) for place in range(first, last + 1))

    def await_commit(self, size_bytes: int, done: OnCommitted, lane: Lane | None = None, identity: str = "") -> None:
        """Let a sender wait for all that is here already."""
        self.size_bytes += size_bytes
        self.submissions.append((len(self.entries), done, lane, identity))

    def lanes(self) -> set[Lane]:
        """Return the lanes that have an entry here."""
        return {lane for _, _, lane, _ in self.submissions if lane is not None}

    def producers(self) -> set[ProducerId]:
        """Return the producers that have a numbered line here."""
        return {line.producer_id for _, line in self.lines}

    def without(
        self, lanes: Collection[Lane], producers: Collection[ProducerId] = ()
    ) -> tuple["Batch", list[OnCommitted]]:
        """Return a batch without what some lanes and producers have submitted, and whom to tell of what it lacks.

        What comes behind that in a lane, or of a producer, which one of them took along goes as well. What is left
        keeps its order and counts as large as before, until it is committed.
        """
        kept, refused = Batch(), []
        lost_lanes, lost_producers = set(lanes), set(producers)
        lines = dict(self.lines)
        keys = {key.first_seq: key for key in self.keys}
        deeds = {deed.place: deed for deed in self.deeds}
        start = 0
        for end, done, lane, identity in self.submissions:
            line = lines.get(start) if start < end else None
            if lane in lost_lanes or (line is not None and line.producer_id in lost_producers):
                refused.append(done)
                if lane is not None:
                    lost_lanes.add(lane)
                if line is not None:
                    lost_producers.add(line.producer_id)
            else:
                shift = len(kept.entries) - start
                kept.entries.extend(self.entries[start:end])
                if start < end and (key := keys.get(start)) is not None:
                    kept.keys.append(key._replace(first_seq=key.first_seq + shift, last_seq=key.last_seq + shift))
                if line is not None:
                    kept.lines.append((start + shift, line))
                moved = (deeds[place] for place in range(start, end) if place in deeds)
                kept.deeds.extend(deed._replace(place=deed.place + shift) for deed in moved)
                kept.submissions.append((len(kept.entries), done, lane, identity))
            start = end
        kept.size_bytes = self.size_bytes
        return kept, refused
