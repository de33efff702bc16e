"""What a deleted history leaves: places that say neither of which device they were nor when that was."""

from msgspec import Raw

from twincast.core.erasure import Erasure, erasures_in, up_to, without_erased
from twincast.core.model import Control, DataUpdate, Deleted, Entry, Erased, Late


def entries_of(*devices: str) -> list[Entry]:
    return [DataUpdate(name, Raw(b"1"), f"t{seq}", "rest", seq, "e") for seq, name in enumerate(devices, 1)]


def test_entries_of_every_kind_go_and_the_others_are_the_very_same() -> None:
    kept = DataUpdate("b", Raw(b"1"), "t4", "rest", 4, "e")
    entries: list[Entry] = [
        DataUpdate("a", Raw(b"1"), "t1", "rest", 1, "e"),
        Control("a", "go", Raw(b"{}"), "t2", "websocket", 2, "e"),
        Late("a", Raw(b"1"), "t3", "nats", "t0", 3, "e"),
        kept,
        Deleted("a", "t5", "rest", 5, "e"),
        Deleted("a", "t6", "rest", 6, "e", "history"),
    ]
    found = without_erased(entries, {"a": 6})
    assert [(entry.kind, entry.seq, entry.epoch) for entry in found if isinstance(entry, Erased)] == [
        ("erased", seq, "e") for seq in (1, 2, 3, 5)
    ]
    assert found[3] is kept
    assert found[5] is entries[5]


def test_a_place_has_the_time_of_the_entry_before_it_that_stays_or_of_the_first_that_does() -> None:
    found = without_erased(entries_of("a", "a", "b", "a", "c", "a"), {"a": 100})
    assert [entry.timestamp_utc for entry in found] == ["t3", "t3", "t3", "t3", "t5", "t5"]
    assert {entry.source for entry in found if isinstance(entry, Erased)} == {"application"}


def test_what_has_nothing_of_it_is_returned_as_it_is() -> None:
    entries = entries_of("a", "b")
    assert without_erased(entries, {}) is entries
    assert without_erased(entries, {"c": 9, "a": 1}) is entries


def test_only_deletions_with_that_scope_erase_and_the_last_one_of_a_device_counts() -> None:
    entries: list[Entry] = [
        Deleted("a", "t1", "rest", 1, "e"),
        Deleted("a", "t2", "rest", 2, "e", "history"),
        Deleted("b", "t3", "rest", 3, "e", "history"),
        Deleted("a", "t4", "rest", 4, "e", "history"),
    ]
    found = erasures_in(entries)
    assert found == [Erasure(2, "a", "t2"), Erasure(3, "b", "t3"), Erasure(4, "a", "t4")]
    assert up_to(found) == {"a": 4, "b": 3}


def test_a_deletion_that_erases_takes_the_right_to_administer() -> None:
    assert (Deleted("a", "", "rest").right, Deleted("a", "", "rest", scope="history").right) == ("publish", "admin")
