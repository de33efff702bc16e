"""What a server's copy of a shared log keeps is what the fold says, whenever the copy was left; without NATS."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from msgspec import Raw

from twincast.core.batch import Committed
from twincast.core.lineage import Generation
from twincast.core.model import DataUpdate, Deleted, Entry
from twincast.journal.jetstream.copy_file import CopyFile, Step
from twincast.journal.jetstream.fold import Folded, Place


def at(second: int) -> str:
    return f"2026-11-23T16:24:{second:02}.000000+00:00"


def deletion(seq: int) -> Deleted:
    return Deleted("a", at(seq), "rest", seq=seq)


def step(entry: Entry, *deleted: Deleted) -> Step:
    return Step(Folded(Place(entry.seq, 1, 1), Committed((entry,)), deleted=deleted))


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[CopyFile]:
    with closing(CopyFile(str(tmp_path / "copy.db"), "lab", "0" * 8, Generation("1" * 8, 0))) as copy:
        yield copy


def remembered(copy: CopyFile) -> list[tuple[object, ...]]:
    with closing(apsw.Connection(copy.path)) as db:
        return db.execute("select device_id, deleted_at_utc, seq from deletion").fetchall()


def test_the_checkpoint_of_a_copy_brings_no_earlier_deletion_back(copy: CopyFile) -> None:
    """A server that is killed then begins with what the others remember."""
    copy.store([step(deletion(1), deletion(1)), step(DataUpdate("a", Raw(b"1"), at(2), "rest", seq=2))])
    copy.store([step(deletion(3), deletion(3))])
    copy.checkpoint(1)
    assert remembered(copy) == [("a", at(3), 3)]
    assert dict(copy.beginning().deletions) == {"a": at(3)}


def test_the_checkpoint_of_a_copy_remembers_no_deletion_that_the_fold_does_not(copy: CopyFile) -> None:
    """By the first version of the rules none is remembered."""
    copy.store([step(DataUpdate("a", Raw(b"1"), at(1), "rest", seq=1)), step(deletion(2))])
    copy.checkpoint()
    assert copy.snapshot().twins == {}
    assert remembered(copy) == []
