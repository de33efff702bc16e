"""How entries lie in the columns of the log: every kind comes back as it was, and a row that is no entry is refused."""

from contextlib import closing

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from tests.fakes import NOW_UTC, batch_of
from tests.wire.strategies import compact, ids, json_values
from twincast.core.audit import CommandOrigin
from twincast.core.model import KINDS, Control, DataUpdate, Deleted, Entry, Late, Source
from twincast.errors import TwincastError
from twincast.journal.sqlite import schema
from twincast.journal.sqlite.entries import (
    COLUMNS,
    LOG_COLUMNS,
    Appending,
    append_sql,
    audit_sql,
    check_columns,
    entry_of,
    insertion_of_rows,
)
from twincast.journal.sqlite.key_tables import AFTER_ALL, read_audit
from twincast.wire.messages import encode, encode_all

MEASURED_UTC, AHEAD_UTC = "2026-11-23T16:23:00.000000+00:00", "2036-11-23T16:23:00.000000+00:00"
BATCH: list[Entry] = [
    DataUpdate("fan", Raw(b'{"rpm":1.50}'), "now", "rest", 7, "e"),
    Control("lab", "stop", Raw(b'{"at":null}'), "now", "websocket", 8, "e"),
    Deleted("fan", "now", "application", 9, "e"),
    Late("fan", Raw(b"3"), NOW_UTC, "rest", MEASURED_UTC, 10, "e"),
    DataUpdate("fan", Raw(b"4"), NOW_UTC, "rest", 11, "e", measured_at_utc=MEASURED_UTC),
    DataUpdate("fan", Raw(b"5"), NOW_UTC, "rest", 12, "e", measured_at_utc=AHEAD_UTC, clock="off"),
]


def test_every_kind_has_columns() -> None:
    assert set(COLUMNS) - {"erased"} == KINDS == {entry.kind for entry in BATCH}


def test_what_is_appended_comes_back_as_it_was() -> None:
    db = apsw.Connection(":memory:")
    schema.create(db, "log")
    db.execute(append_sql(with_claims=True), (7, encode(BATCH).decode()))
    rows = db.execute(f"select {LOG_COLUMNS} from log order by seq").fetchall()
    assert [(row[2], row[3], row[4]) for row in rows] == [
        ("fan", '{"rpm":1.50}', None),
        ("lab", '{"at":null}', "stop"),
        ("fan", "null", None),
        ("fan", "3", None),
        ("fan", "4", None),
        ("fan", "5", None),
    ]
    assert encode_all([entry_of(row, "e") for row in rows]) == encode_all(BATCH)


SPELLINGS = st.sampled_from(
    [b"1.50", b"1e5", b"-0", b"18446744073709551615", b'"\\u00fc\\/"', b'{"a":[1.0,{"b":"\\n"}]}']
)
VALUES = SPELLINGS | json_values.map(compact)
READINGS = st.lists(st.tuples(ids, VALUES, st.sampled_from(["rest", "websocket"])), min_size=1, max_size=6)


def test_what_claims_when_it_was_measured_lies_in_the_log_as_its_event_would() -> None:
    batch = batch_of([DataUpdate("fan", Raw(b"1"), "", "rest"), *BATCH])
    batch.stamp(NOW_UTC)
    batch.place(7, "e")
    texts = encode_all(batch.entries)
    for insertion in (Appending().insertion(batch, texts), insertion_of_rows(batch.entries)):
        with closing(apsw.Connection(":memory:")) as db:
            schema.create(db, "log")
            db.execute(*insertion)
            rows = db.execute(f"select {LOG_COLUMNS} from log order by seq").fetchall()
        assert encode_all([entry_of(row, "e") for row in rows]) == texts
        assert [row[7] for row in rows] == [*[None] * 4, MEASURED_UTC, MEASURED_UTC, AHEAD_UTC]


@given(READINGS, st.booleans())
def test_readings_lie_in_the_log_as_their_events_would(
    given: list[tuple[str, bytes, Source]], has_command: bool
) -> None:
    readings: list[Entry] = [DataUpdate(device_id, Raw(value), "", source) for device_id, value, source in given]
    batch = batch_of([*readings, Control("lab", "stop", Raw(b"{}"), "", "rest")] if has_command else readings)
    batch.stamp("now")
    batch.place(7, "e")
    texts = encode_all(batch.entries)
    rows = []
    for sql, bindings in (
        Appending().insertion(batch, texts),
        (append_sql(), (7, f"[{b','.join(texts).decode()}]")),
    ):
        with closing(apsw.Connection(":memory:")) as db:
            schema.create(db, "log")
            db.execute(sql, bindings)
            rows.append(db.execute(f"select {LOG_COLUMNS} from log order by seq").fetchall())
    assert rows[0] == rows[1]
    assert encode_all([entry_of(row, "e") for row in rows[0]]) == texts


def test_a_batch_of_readings_that_came_one_way_is_bound_as_pairs() -> None:
    batch = batch_of([DataUpdate("fan", Raw(b"1"), "", "rest"), DataUpdate("lamp", Raw(b"2"), "", "rest")])
    batch.stamp("now")
    batch.place(7, "e")
    assert Appending().insertion(batch, []).bindings == (7, '[["fan",1],["lamp",2]]', "now", "rest")


@pytest.mark.parametrize(
    ("kind", "value", "command", "measured_at_utc"),
    [
        ("data_update", "1", "stop", None),
        ("control", "{}", None, None),
        ("control", "[]", "stop", None),
        ("deleted", "1", None, None),
        ("presence", "1", None, None),
        ("late", "1", None, None),
        ("control", "{}", "stop", MEASURED_UTC),
        ("deleted", "null", None, MEASURED_UTC),
        ("data_update", "1", None, "2026-11-23T16:23:00Z"),
        ("late", "1", None, "yesterday"),
        ("late", "1", None, 1764216970),
    ],
)
def test_a_row_without_the_columns_of_its_kind_is_no_entry(
    kind: str, value: str, command: str | None, measured_at_utc: str | int | None
) -> None:
    with pytest.raises((ValueError, TwincastError)):
        check_columns(kind, value, command, measured_at_utc)


def test_a_record_of_the_audit_trail_names_the_server_that_took_what_it_records() -> None:
    db = apsw.Connection(":memory:")
    schema.create(db, "log")
    db.execute(append_sql(), (7, encode(BATCH[:3]).decode()))
    origins = [CommandOrigin(8, "key:1", "192.0.2.1", "n1"), CommandOrigin(9, "key:1", "192.0.2.1")]
    db.execute(audit_sql(), (encode(origins).decode(),))
    said = [(record.action, record.target, record.server) for _, record in read_audit(db, 9, AFTER_ALL)]
    assert said == [("delete", "fan", ""), ("command", "lab", "n1")]
    assert db.execute("select count(*) from audit where server is null").get == 1
