"""A partition says what the log said, byte for byte, and stands alone."""

from pathlib import Path

import apsw
import pytest

from tests.journal.sqlite.history.making import (
    at,
    closed,
    command,
    deletion,
    late,
    log_of,
    reading,
    rows,
    write,
    write_rows,
)
from twincast.errors import JournalUnavailable, JournalUnusable
from twincast.journal.sqlite.history import layout
from twincast.journal.sqlite.history.layout import newest_stored, oldest_stored_from, open_partition
from twincast.journal.sqlite.history.times import iso, time_us


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


EVERYTHING = [
    reading("lab/b", "21.50", 1),
    reading("lab/a", '{"x":1E2,"y":[1,2]}', 1.000001, source="application"),
    command("lab/fan", 2),
    reading("lab/a", '"ü\\u00fc"', 2.5, source="nats", measured=at(1.2)),
    late("lab/a", "7", 3, at(0, day=1)),
    deletion("lab/b", 4),
    reading("lab/c", "null", 5, measured="2026-11-24T00:00:00.000000+00:00"),
    reading("lab/b", "18446744073709551616", 6, measured=at(66)),
    reading("lab/b", "1", 6.5, measured=at(6.5)),
]


def test_a_partition_has_every_text_of_the_log_byte_for_byte(journal: Path) -> None:
    write(journal, EVERYTHING)
    partition, facts = closed(journal, 1, 9)
    assert log_of(partition) == log_of(journal)
    assert facts.entries == 9
    assert (iso(facts.stored_min_us), iso(facts.stored_max_us)) == (at(1), at(6.5))
    assert (iso(facts.min_us), iso(facts.max_us)) == (at(0, day=1), at(66))


def test_times_and_values_in_forms_of_other_programs_come_back_as_they_were(journal: Path) -> None:
    write(journal, [reading("a", "1", 1)])
    odd = [
        (2, "data_update", "a", " 1 ", None, "2026-11-23T00:00:01Z", "rest", None),
        (3, "data_update", "a", "2", None, "2026-11-23T01:00:01.5+01:00", "rest", None),
        (4, "data_update", "a", "3", None, "1969-12-31T23:59:59.999999+00:00", "rest", None),
        (5, "data_update", "a", "4", None, "whenever", "elsewhere", "also"),
        (6, "data_update", "a", "5", None, "2026-W48-1T00:00:01.000000+00:00", "rest", None),
        (
            7,
            "data_update",
            "a",
            "6",
            None,
            "2026-11-23 00:00:01.000000+00:00",
            "rest",
            "0001-01-01T00:00:00.000000+00:00",
        ),
        (8, "data_update", "a", "7", None, "2026-11-23T00:00:02.000000+00:00", "rest", "2026-11-23T00:00:01Z"),
    ]
    write_rows(journal, odd)
    partition, _ = closed(journal, 1, 8)
    assert log_of(partition) == log_of(journal)
    times = rows(partition, "select coalesce(stored_us, at_us) from entry order by seq")
    assert [us for (us,) in times] == [
        *[time_us(at(1))] * 2,
        time_us(at(1.5)),
        -1,
        0,
        *[time_us(at(1))] * 2,
        time_us(at(2)),
    ]


def test_a_measured_time_counts_if_it_is_believed_and_else_the_stored_one(journal: Path) -> None:
    write(journal, [reading("a", "1", 1, measured=at(61)), reading("a", "2", 2, measured=at(62.000001))])
    partition, _ = closed(journal, 1, 2)
    found = rows(partition, "select seq, at_us, stored_us from entry order by seq")
    assert found == [(1, time_us(at(61)), time_us(at(1))), (2, time_us(at(2)), None)]
    assert rows(partition, "select * from claimed") == [(2, at(62.000001))]


def test_kinds_and_sources_have_their_numbers_and_names(journal: Path) -> None:
    write(journal, EVERYTHING)
    partition, _ = closed(journal, 1, 9)
    kinds = [kind for (kind,) in rows(partition, "select kind from entry order by seq")]
    assert kinds == [0, 0, 1, 0, 3, 2, 0, 0, 0]
    assert rows(partition, "select * from kind order by id") == list(layout.KINDS.items())
    assert rows(partition, "select * from source order by id") == list(layout.SOURCES.items())
    assert rows(partition, "select * from command") == [(3, "set")]


def test_entries_are_clustered_by_device_and_time_and_found_by_seq(journal: Path) -> None:
    write(journal, EVERYTHING)
    partition, _ = closed(journal, 1, 9)
    devices = rows(partition, "select name from device order by id")
    assert devices == sorted(devices)
    for sql, how in [
        (
            "select * from entry where device = 1 and at_us > 5 order by at_us desc, seq desc limit 9",
            "USING PRIMARY KEY",
        ),
        ("select * from log where seq > 5 order by seq limit 9", "USING INDEX by_seq"),
    ]:
        plan = " ".join(str(row[3]) for row in rows(partition, f"explain query plan {sql}"))
        assert how in plan
        assert "TEMP B-TREE" not in plan


def test_the_state_before_a_partition_is_the_fold_of_all_before(journal: Path) -> None:
    first = [
        reading("kept", "1", 1),
        reading("changed", "1", 2),
        reading("deleted", "1", 3),
        reading("again", "1", 4),
        command("target", 5),
        reading("changed", "2", 6, measured=at(5.5)),
        late("changed", "9", 7, at(1)),
        deletion("deleted", 8),
        deletion("again", 9),
        reading("claims", "1", 10, measured=at(0, day=30)),
    ]
    second = [reading("again", "2", 11), reading("new", "1", 12), deletion("claims", 13)]
    write(journal, [*first, *second, reading("last", "1", 14)])
    one, _ = closed(journal, 1, 10)
    two, _ = closed(journal, 11, 13, before=one)
    three, _ = closed(journal, 14, 14, before=two)
    state = "select device_id, value, updated_at_utc, source, seq, measured_at_utc from twin_before order by seq"
    assert rows(one, state) == []
    assert rows(two, state) == [
        ("kept", "1", at(1), "rest", 1, None),
        ("changed", "2", at(6), "rest", 6, at(5.5)),
        ("claims", "1", at(10), "rest", 10, at(0, day=30)),
    ]
    assert rows(three, f"select device_id, value from ({state})") == [
        ("kept", "1"),
        ("changed", "2"),
        ("again", "2"),
        ("new", "1"),
    ]
    assert rows(three, "select * from about order by name") == [
        *(("first_seq", "14"), ("has_measured", "0"), ("last_seq", "14"), ("log", "log"), ("state_is_whole", "1"))
    ]


def test_a_clock_that_was_set_back_makes_no_old_reading_the_newest(journal: Path) -> None:
    write(journal, [reading("a", "1", 100), reading("b", "1", 101), reading("a", "2", 50), reading("b", "2", 102)])
    write(journal, [reading("c", "1", 103)])
    one, _ = closed(journal, 1, 4)
    two, _ = closed(journal, 5, 5, before=one)
    assert rows(one, "select name from unordered join device on id = device") == [("a",)]
    assert rows(two, "select device_id, value from twin_before order by 1") == [("a", "2"), ("b", "2")]


def test_the_first_partition_of_a_log_that_was_trimmed_has_the_twins_that_are_known(journal: Path) -> None:
    write(journal, [reading("kept", "1", 1, measured=at(0.5)), reading("changed", "1", 2), reading("changed", "2", 3)])
    with apsw.Connection(str(journal)) as db:
        db.execute("delete from log where seq <= 2")
    partition, _ = closed(journal, 3, 3)
    state = "select device_id, value, seq, measured_at_utc from twin_before"
    assert rows(partition, state) == [("kept", "1", 1, at(0.5))]
    assert ("state_is_whole", "0") in rows(partition, "select * from about")


def test_ticks_tell_where_a_time_is(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(journal, [reading("a", str(number), number) for number in range(2_500)])
    partition, _ = closed(journal, 1, 2_500)
    assert rows(partition, "select first_seq, max_us - min_us from tick") == [
        *[(1, 999_000_000), (1_001, 999_000_000), (2_001, 499_000_000)]
    ]
    db = open_partition(str(partition))
    assert [oldest_stored_from(db, time_us(at(s)), 2_500) for s in (0, 0.5, 999, 1_700, 2_499, 2_500)] == [
        *[1, 2, 1_000, 1_701, 2_500, 2_501]
    ]
    assert newest_stored(db, time_us(at(2_499))) == 2_500
    db.close()


@pytest.mark.parametrize(("first", "last"), [(1, 4), (3, 12), (0, 2)])
def test_a_span_that_the_log_does_not_have_is_refused(journal: Path, first: int, last: int) -> None:
    write(journal, [reading("a", "1", number) for number in range(3)])
    with pytest.raises(JournalUnusable, match="is not whole"):
        closed(journal, first, last)


def test_an_entry_of_an_unknown_kind_is_not_lost(journal: Path) -> None:
    write(journal, [reading("a", "1", 1)])
    write_rows(journal, [(2, "dream", "a", "1", None, at(2), "rest", None)])
    with pytest.raises((JournalUnusable, apsw.ConstraintError)):
        closed(journal, 1, 2)


def test_what_is_no_partition_is_not_opened_as_one(journal: Path) -> None:
    write(journal, [reading("a", "1", 1)])
    with pytest.raises(JournalUnavailable, match="no partition"):
        open_partition(str(journal))
    with pytest.raises(JournalUnavailable, match="cannot be opened"):
        open_partition(f"{journal}-none")
