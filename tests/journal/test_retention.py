"""What is to be kept, and what cannot be."""

import pytest

from twincast.errors import SettingUnusable
from twincast.journal.retention import ENTRY_MIN_BYTES, HEADROOM_BYTES, Retention


def test_a_bound_without_room_for_what_clients_resume_from_is_refused_with_what_to_do() -> None:
    with pytest.raises(SettingUnusable) as refused:
        Retention(keep_bytes=100_000_000, keep_entries=1_000_000).check()
    said = refused.value.message
    assert "has no room for the newest 1,000,000 entries" in said
    assert "give it 154MB or more, or --resume-max-entries 584642 at most" in said


def test_what_the_error_says_to_do_is_taken() -> None:
    Retention(keep_bytes=154_000_000, keep_entries=1_000_000).check()
    Retention(keep_bytes=100_000_000, keep_entries=584_642).check()
    Retention(keep_s=1.0, keep_entries=10**12).check()  # no bound in bytes
    Retention().check()


def test_a_bound_below_what_any_journal_takes_is_refused_whatever_is_resumed_from() -> None:
    with pytest.raises(SettingUnusable, match=r"give it 26MB or more \(") as refused:
        Retention(keep_bytes=HEADROOM_BYTES, keep_entries=1).check()
    assert "--resume-max-entries" not in refused.value.message
    Retention(keep_bytes=HEADROOM_BYTES + ENTRY_MIN_BYTES, keep_entries=1).check()
