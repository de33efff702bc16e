"""A server that breaks one rule of a shared log on purpose: `python -m tests.cluster_soak.broken serve …`.

Which one says the variable TWINCAST_BROKEN_RULE. The controls of the soak: a run on such servers must catch them.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

from twincast.cli.main import main
from twincast.core.batch import Batch, Placed
from twincast.journal.jetstream.commit import Attached, commit_of, encode_commit
from twincast.journal.jetstream.fold import Beginning, Fold
from twincast.journal.jetstream.journal import JetStreamJournal


def take_known_keys() -> None:
    """Rule 5: an idempotency key that is known leaves nothing out."""
    sort = Fold._sort

    def sort_without_keys(fold: Fold, all_attached: Sequence[Attached]) -> Any:
        found = sort(fold, [Attached(each.first, each.last, None, each.actor, each.line) for each in all_attached])
        whole = {each.first: each for each in all_attached}
        found.kept = [whole[each.first] for each in found.kept]
        found.dropped = [whole[each.first] for each in found.dropped]
        return found

    Fold._sort = sort_without_keys  # type: ignore[method-assign,assignment]


class _Nobody(dict[str, Any]):
    """Writers of whom nothing is known."""

    def get(self, *_: object) -> None:
        return None


def take_copies() -> None:
    """Rule 4: a commit whose number is not above the last of its writer counts."""
    begin = Fold.__init__

    def begin_without_writers(fold: Fold, beginning: Beginning) -> None:
        begin(fold, beginning)
        fold._writers = _Nobody(fold._writers)

    Fold.__init__ = begin_without_writers  # type: ignore[method-assign,assignment]


def acknowledge_early() -> None:
    """A batch is acknowledged when it was sent, at the positions that it will have if nobody else sends any."""

    async def append(journal: JetStreamJournal, batch: Batch) -> Placed:
        writer, after = journal.writer, journal._fold.seq
        writer._n += 1
        payload = encode_commit(commit_of(batch, writer.by, writer._n, server=writer.name, after=after))
        headers = {"Nats-Msg-Id": f"{writer.by}:{writer._n}"}
        await journal.link.publish(journal.address.log_subject, payload, headers=headers)
        batch.mark(())
        batch.timestamp_utc, batch.first_seq = journal._fold.at_utc, after + 1
        return Placed(range(after + 1, after + 1 + len(batch.entries)))

    JetStreamJournal.append = append  # type: ignore[method-assign,assignment]


RULES: dict[str, Callable[[], None]] = {
    "keys": take_known_keys,
    "numbers": take_copies,
    "early": acknowledge_early,
}

if __name__ == "__main__":
    RULES[os.environ["TWINCAST_BROKEN_RULE"]]()
    main()
