"""Counts, sizes and times as a person reads them."""

from typing import Any

import pytest

from twincast.cli.status import journal_rows
from twincast.cli.units import counted, in_bytes, in_time


def test_one_is_not_many() -> None:
    assert [counted(n, "reading") for n in (0, 1, 2_000)] == ["0 readings", "1 reading", "2,000 readings"]


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1_000, "1.0 KB"), (2_500_000_000, "2.5 GB"), (3.2e18, "3200.0 PB")],
)
def test_sizes(size: float, text: str) -> None:
    assert in_bytes(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1.4, "1 s"),
        (119, "119 s"),
        (120, "2 minutes"),
        (86_400, "24 hours"),
        (30 * 86_400, "30 days"),
        (1e9, "32 years"),
    ],
)
def test_times(seconds: float, text: str) -> None:
    assert in_time(seconds) == text


SPACE: dict[str, Any] = {
    "file_bytes": 4_000_000,
    "wal_bytes": 1_000_000,
    "used_bytes": 3_000_000,
    "entries": 40_000,
    "oldest_seq": 1,
    "oldest_at_utc": "2026-11-23T16:24:00+00:00",
    "keep_s": None,
    "keep_bytes": None,
    "disk_free_bytes": 8_640_000_000,
    "growth_bytes_per_s": None,
    "full_in_s": None,
    "problem": None,
}


def test_a_journal_on_disk_is_said_with_how_long_its_disk_lasts() -> None:
    said = dict(journal_rows(SPACE))
    assert said["journal_size"] == "4.0 MB, and 1.0 MB of -wal"
    assert said["entries"] == "40,000, since 2026-11-23T16:24:00+00:00"
    assert said["kept"] == "all"
    assert said["disk"] == "8.6 GB free; for how long that lasts is known after a minute of writing"
    known = {
        "growth_bytes_per_s": 1_000.0,
        "full_in_s": 8_640_000.0,
        "keep_s": 2_592_000.0,
        "keep_bytes": 2_000_000_000,
    }
    said = dict(journal_rows({**SPACE, **known}))
    assert said["disk"] == "8.6 GB free; full in 100 days at this pace, 1.0 KB/s"
    assert said["kept"] == "30 days, 2.0 GB at most"
    said = dict(journal_rows({**SPACE, **known, "full_in_s": None, "problem": "it is full"}))
    assert said["disk"] == "8.6 GB free; it does not fill at this pace, 1.0 KB/s"
    assert said["trimming"] == "it is full"


def test_a_journal_in_memory_has_no_disk() -> None:
    said = dict(journal_rows({**SPACE, "disk_free_bytes": None, "keep_bytes": 67_108_864, "oldest_at_utc": None}))
    assert said == {"journal_size": "3.0 MB of memory", "entries": "40,000", "kept": "67.1 MB at most"}
