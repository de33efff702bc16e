"""Rollups are what a sum over the entries gives, and are kept only where they condense."""

import json
from collections import defaultdict
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.journal.sqlite.history.making import Row, at, closed, command, late, reading, rows, write
from twincast.journal.sqlite.history import rollup
from twincast.journal.sqlite.history.layout import WIDTHS_S
from twincast.journal.sqlite.history.rollup import CONDENSES, pointer_of

KEPT = "select name, pointer, width_s, start_s, n, sum, min, max, min_us, max_us from rollup join device on device.id"
KEPT += " = device join path on path.id = path order by 1, 2, 3, 4"


def numbers(value: Any, pointer: str = "") -> list[tuple[str, int | float]]:
    """Return the numbers of a value, each with where it is."""
    if isinstance(value, dict):
        return [found for key, each in value.items() for found in numbers(each, f"{pointer}/{escaped(key)}")]
    if isinstance(value, list):
        return [found for number, each in enumerate(value) for found in numbers(each, f"{pointer}/{number}")]
    return [(pointer, value)] if isinstance(value, int | float) and not isinstance(value, bool) else []


def escaped(key: str) -> str:
    """Return a name as a JSON Pointer has it."""
    return key.replace("~", "~0").replace("/", "~1")


def summed(partition: Path) -> dict[tuple[Any, ...], list[Any]]:
    """Return what the rollups of all widths are, from entries one by one."""
    found: dict[tuple[Any, ...], list[Any]] = defaultdict(lambda: [0, 0.0, None, None, 0, 0])
    entries = rows(partition, "select name, at_us, value from entry join device on id = device where kind in (0, 3)"
                   " order by device, at_us, seq")  # fmt: skip
    for name, at_us, text in entries:
        for pointer, x in numbers(json.loads(text)):
            for width in WIDTHS_S:
                sums = found[name, pointer, width, at_us // (width * 1_000_000) * width]
                sums[0] += 1
                sums[1] += x
                if sums[2] is None or x < sums[2]:
                    sums[2], sums[4] = x, at_us
                if sums[3] is None or x > sums[3]:
                    sums[3], sums[5] = x, at_us
    return found


def check(partition: Path) -> list[Row]:
    """Compare the rollups of a partition with its entries; return them."""
    expected, kept = summed(partition), rows(partition, KEPT)
    for name, pointer, width, start, n, total, low, high, low_us, high_us in kept:
        n_, total_, low_, high_, low_us_, high_us_ = expected[name, pointer, width, start]
        assert (n, low, high, low_us, high_us) == (n_, low_, high_, low_us_, high_us_)
        assert total == pytest.approx(total_)
    # What is kept of a device at a width is all of it.
    widths = {(name, width) for name, _, width, *_ in kept}
    assert {key for key in expected if (key[0], key[2]) in widths} == {row[:4] for row in kept}
    return kept


@pytest.mark.parametrize("chunk_entries", [50, 100_000])
def test_rollups_are_the_sums_of_their_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk_entries: int
) -> None:
    monkeypatch.setattr(rollup, "CHUNK_ENTRIES", chunk_entries)
    chance, entries = Random(1), []
    for number in range(1_200):
        second = number * 7.3
        entries.append(
            reading(f"d{number % 3}", chance.choice(["1", "-2.5", "1E3", '"3"', "true", "7", "0.1"]), second)
        )
        value = json.dumps({"motor": {"rpm": chance.randrange(9), "on": True}, "a/b~": [chance.random(), "x"]})
        entries.append(reading("nested", value, second + 1, measured=at(second // 2)))
        if number % 5 == 0:
            entries += [command("d0", second), late("d1", str(number), second, at(chance.randrange(80_000), day=1))]
    write(tmp_path / "journal.db", entries)
    partition, _ = closed(tmp_path / "journal.db", 1, len(entries))
    kept = check(partition)
    assert {(row[0], row[1]) for row in kept} == {
        *(("d0", ""), ("d1", ""), ("d2", "")),
        *(("nested", "/motor/rpm"), ("nested", "/a~1b~0/0")),
    }


def test_before_1970_buckets_are_whole_too(tmp_path: Path) -> None:
    entries = [late("a", str(number), 1, f"1969-12-31T23:59:{number % 60:02}.500000+00:00") for number in range(64)]
    entries += [late("a", str(number), 1, f"1970-01-01T00:00:{number % 60:02}.500000+00:00") for number in range(64)]
    write(tmp_path / "journal.db", entries)
    partition, _ = closed(tmp_path / "journal.db", 1, len(entries))
    starts = {row[3] for row in check(partition) if row[2] == 60}
    assert starts == {-60, 0}


def test_a_device_that_reports_seldom_has_no_rollup_of_each_entry(tmp_path: Path) -> None:
    entries = [reading("seldom", "1", number * 1_000) for number in range(80)]
    entries += [reading("often", "1", number) for number in range(3_600)]
    write(tmp_path / "journal.db", entries)
    partition, _ = closed(tmp_path / "journal.db", 1, len(entries))
    widths = defaultdict(list)
    for name, _, width, _, n, *_ in check(partition):
        widths[name, width].append(n)
    assert {width for name, width in widths if name == "seldom"} == {21_600, 86_400}
    assert {width for name, width in widths if name == "often"} == {60, 600, 3_600, 21_600, 86_400}
    assert all(sum(counts) >= CONDENSES * len(counts) for counts in widths.values())


def test_a_device_that_pauses_is_summed_up_as_finely_as_it_reports(tmp_path: Path) -> None:
    entries = [reading("pauses", "1", hour * 3_600 + number) for hour in range(20) for number in range(60)]
    write(tmp_path / "journal.db", entries)
    partition, _ = closed(tmp_path / "journal.db", 1, len(entries))
    assert min(row[2] for row in check(partition)) == 60


def test_whole_numbers_of_64_bits_keep_every_digit(tmp_path: Path) -> None:
    low, high = -(1 << 63), (1 << 63) - 1
    entries = [reading("a", str(value), number / 10) for number, value in enumerate([low, high, 1] * 10)]
    write(tmp_path / "journal.db", entries)
    partition, _ = closed(tmp_path / "journal.db", 1, len(entries))
    assert {row[6:8] for row in rows(partition, KEPT)} == {(low, high)}


@pytest.mark.parametrize(
    ("key", "pointer"),
    [
        ("$", ""),
        ("$.a", "/a"),
        ("$.a.b[0][12]", "/a/b/0/12"),
        ('$."a b".c', "/a b/c"),
        ('$."x\\"y"."q.r[0]"', '/x"y/q.r[0]'),
        ('$.""', "/"),
        ('$."a/b~c"', "/a~1b~0c"),
        ('$."\\u00e9"', "/é"),
    ],
)
def test_a_path_of_sqlite_is_told_as_a_pointer(key: str, pointer: str) -> None:
    assert pointer_of(key) == pointer


def test_sums_that_no_double_holds_do_not_keep_a_log_from_being_closed(tmp_path: Path) -> None:
    values = ["1e308"] * 20 + ["-1e308"] * 20
    write(tmp_path / "journal.db", [reading("a", value, 3 * second) for second, value in enumerate(values)])
    partition, _ = closed(tmp_path / "journal.db", 1, len(values))
    sums = rows(partition, "select width_s, start_s % 60, sum from rollup where width_s in (60, 600) order by 1, 2")
    assert [row for row in sums if row[0] == 60] == [(60, 0, float("inf")), (60, 0, float("-inf"))]
    assert [row for row in sums if row[0] == 600] == [(600, 0, None)]
