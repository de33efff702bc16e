"""What the log has behind a snapshot, and the pages of the snapshot had already."""

from msgspec import Raw

from twincast.core.model import Control, DataUpdate, Deleted, Entry
from twincast.delivery.cast import Cast
from twincast.delivery.overlap import Overlap
from twincast.wire.messages import encode_all


def seqs(overlap: Overlap, *entries: Entry) -> list[int]:
    return [entry.seq for entry in overlap.left_out_of(Cast(encode_all(entries), entries)).entries]


def reading(seq: int, device_id: str) -> DataUpdate:
    return DataUpdate(device_id, Raw(b"1"), "", "rest", seq)


def test_an_entry_that_a_page_has_shown_is_left_out_and_what_is_newer_comes() -> None:
    overlap = Overlap()
    overlap.note({"a": 5, "b": 7})
    assert seqs(overlap, reading(5, "a"), reading(6, "a"), reading(7, "b"), reading(8, "c")) == [6, 8]
    assert overlap.until == 7
    overlap.note({"a": 6})
    assert (seqs(overlap, reading(6, "a")), overlap.until) == ([], 7)


def test_a_deletion_before_the_twin_that_was_shown_is_left_out_and_a_command_never() -> None:
    overlap = Overlap()
    overlap.note({"a": 5})
    command = Control("a", "on", Raw(b"{}"), "", "rest", 4)
    assert seqs(overlap, Deleted("a", "", "rest", 3), command, Deleted("a", "", "rest", 6)) == [4, 6]


def test_a_cast_that_nothing_is_left_out_of_is_that_very_cast() -> None:
    overlap, entries = Overlap(), [reading(9, "a")]
    overlap.note({"a": 5})
    cast = Cast(encode_all(entries), entries)
    assert overlap.left_out_of(cast) is cast
