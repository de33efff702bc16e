"""How entries lie in the columns of the log: every kind comes back as it was, and a row that is no entry is refused."""

import apsw
import pytest
from msgspec import Raw

from twincast.core.model import KINDS, Control, DataUpdate, Deleted, Entry
from twincast.errors import TwincastError
from twincast.journal.sqlite import schema
from twincast.journal.sqlite.entries import COLUMNS, LOG_COLUMNS, append_sql, check_columns, entry_of
from twincast.wire.messages import encode, encode_all

BATCH: list[Entry] = [
    DataUpdate("fan", Raw(b'{"rpm":1.50}'), "now", "rest", 7, "e"),
    Control("lab", "stop", Raw(b'{"at":null}'), "now", "websocket", 8, "e"),
    Deleted("fan", "now", "application", 9, "e"),
]


def test_every_kind_has_columns() -> None:
    assert set(COLUMNS) == KINDS == {entry.kind for entry in BATCH}


def test_what_is_appended_comes_back_as_it_was() -> None:
    db = apsw.Connection(":memory:")
    schema.create(db, "log")
    db.execute(append_sql(), (7, encode(BATCH).decode()))
    rows = db.execute(f"select {LOG_COLUMNS} from log order by seq").fetchall()
    assert [(row[2], row[3], row[4]) for row in rows] == [
        ("fan", '{"rpm":1.50}', None),
        ("lab", '{"at":null}', "stop"),
        ("fan", "null", None),
    ]
    assert encode_all([entry_of(row, "e") for row in rows]) == encode_all(BATCH)


@pytest.mark.parametrize(
    ("kind", "value", "command"),
    [
        ("data_update", "1", "stop"),
        ("control", "{}", None),
        ("control", "[]", "stop"),
        ("deleted", "1", None),
        ("presence", "1", None),
    ],
)
def test_a_row_without_the_columns_of_its_kind_is_no_entry(kind: str, value: str, command: str | None) -> None:
    with pytest.raises((ValueError, TwincastError)):
        check_columns(kind, value, command)
