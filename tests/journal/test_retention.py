"""What is to be kept, and what cannot be."""

from pathlib import Path

import pytest

from twincast.errors import SettingUnusable
from twincast.journal.retention import (
    AGED_PARTITION_ENTRIES,
    AGED_SUMMED_ENTRIES,
    ENTRY_MIN_BYTES,
    HEADROOM_BYTES,
    PARTITION_MAX_AGE_S,
    Retention,
)
from twincast.journal.stores import open_stores


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


def test_what_is_done_with_partitions_has_the_log_closed_sooner() -> None:
    assert Retention().closes_at_age_s == PARTITION_MAX_AGE_S
    assert Retention(keep_s=4_000.0).closes_at_age_s == 1_000.0
    assert Retention(keep_s=4_000.0, keep_for=(("a", 400.0), ("b", 800.0))).closes_at_age_s == 100.0
    assert Retention(keep_s=4_000.0).aged_entries == AGED_PARTITION_ENTRIES
    assert Retention(keep_rollups_s=4_000.0).aged_entries == AGED_SUMMED_ENTRIES
    assert Retention(keep_for=(("a", 400.0),)).aged_entries == AGED_SUMMED_ENTRIES


async def test_settings_without_effect_are_said(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    kept = Retention(keep_rollups_s=4_000.0, partition_entries=0)
    for url, said in (("memory:", "apply to a journal on disk only"), (f"sqlite:{tmp_path}/j.db", "nothing is closed")):
        stores = await open_stores(url, memory_max_bytes=1 << 20, retention=kept)
        await stores.close()
        assert said in caplog.text


async def test_a_longer_time_for_some_devices_than_for_the_log_is_said_to_be_without_effect(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    kept = Retention(keep_s=400.0, keep_for=(("lab/*", 500.0), ("hall/*", 100.0)))
    stores = await open_stores(f"sqlite:{tmp_path}/j.db", memory_max_bytes=1 << 20, retention=kept)
    await stores.close()
    assert "--keep-for of 'lab/*' has no effect" in caplog.text
    assert "hall" not in caplog.text
    assert Retention(keep_for=(("lab/*", 500.0),)).keep_for_in_vain == []
    assert kept._replace(keep_rollups_s=600.0).keep_for_in_vain == []  # the sums of these devices go before others
    assert kept._replace(keep_rollups_s=450.0).keep_for_in_vain == ["lab/*"]
    assert Retention(keep_rollups_s=450.0, keep_for=kept.keep_for).keep_for_in_vain == []


async def test_sums_of_entries_that_are_all_kept_are_said_to_be_without_effect(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    for kept in (
        Retention(keep_rollups_s=4_000.0, keep_s=400.0),
        Retention(keep_rollups_s=4_000.0, keep_bytes=1 << 30),
        Retention(keep_rollups_s=4_000.0),
    ):
        assert "--keep-rollups has no effect" not in caplog.text
        stores = await open_stores(f"sqlite:{tmp_path}/j.db", memory_max_bytes=1 << 20, retention=kept)
        await stores.close()
    assert "--keep-rollups has no effect" in caplog.text


async def test_a_shorter_time_for_some_devices_is_said_to_be_without_effect_in_memory(
    caplog: pytest.LogCaptureFixture,
) -> None:
    kept = Retention(keep_for=(("lab/*", 500.0),))
    await (await open_stores("memory:", memory_max_bytes=1 << 20, retention=kept)).close()
    assert "apply to a journal on disk only" in caplog.text
