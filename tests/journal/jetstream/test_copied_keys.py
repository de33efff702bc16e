"""A copy's tables say of the keys what the fold says, wherever it began."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from hypothesis import given

from tests.journal.jetstream.test_key_changes import WISHES, at, change, code, key, log_of
from twincast.core.audit import AuditRecord
from twincast.core.lineage import Generation
from twincast.errors import JournalUnusable
from twincast.journal.jetstream.copied_keys import load, store_change
from twincast.journal.jetstream.copy_file import CopyFile, Step
from twincast.journal.jetstream.fold import Folded, Place
from twincast.journal.jetstream.key_changes import KeyTable, decode_change
from twincast.journal.sqlite import schema
from twincast.journal.sqlite.file import SqliteFile
from twincast.journal.sqlite.key_tables import AFTER_ALL, read_audit


@pytest.fixture
def db(tmp_path: Path) -> Iterator[apsw.Connection]:
    path = str(tmp_path / "copy.db")
    SqliteFile(path).close()
    with closing(apsw.Connection(path)) as db:
        yield db


@given(WISHES)
def test_tables_and_table_hold_the_same_after_each_change(wishes: list[tuple[str, int, int, str]]) -> None:
    table, records = KeyTable(), list[AuditRecord]()
    with closing(apsw.Connection(":memory:")) as db:
        schema.create(db, "log")
        assert load(db).rows() == table.rows()
        for message, seq, at_utc in log_of(wishes):
            said = decode_change(message)
            records += table.apply(said, seq, at_utc)
            with db:
                store_change(db, said, seq, at_utc)
            assert load(db).rows() == table.rows()
        assert [record for _, record in read_audit(db, AFTER_ALL, AFTER_ALL)] == records[::-1]


def test_a_change_is_stored_with_the_place_of_the_copy_or_not_at_all(db: apsw.Connection) -> None:
    before = load(db).rows()
    with pytest.raises(ZeroDivisionError), db:
        store_change(db, change(add=key(1)), 1, at(0))
        raise ZeroDivisionError
    assert load(db).rows() == before
    assert read_audit(db, 9, AFTER_ALL) == []


def test_what_contradicts_the_tables_is_not_stored(db: apsw.Connection) -> None:
    with db:
        store_change(db, change(add=key(1)), 1, at(0))
        store_change(db, change(code=code(1)), 2, at(0))
    before = load(db).rows()
    for wrong in ({"add": key(1, "b")}, {"revoke": "id2"}, {"code": code(1)}, {"used": "code2"}):
        with pytest.raises(JournalUnusable, match="contradicts"), db:
            store_change(db, change("", **wrong), 3, at(1))
    assert load(db).rows() == before


def test_what_is_given_to_a_copy_again_is_stored_once(tmp_path: Path) -> None:
    steps = [
        Step(Folded(Place(1, 1, 1)), change(add=key(1)), at(0)),
        Step(Folded(Place(2, 2, 2)), change(revoke="id1"), at(1)),
    ]
    with closing(CopyFile(str(tmp_path / "copy.db"), "lab", "0" * 8, Generation("1" * 8, 0))) as file:
        for upto in (1, 1, 2, 2):
            file.store(steps[:upto])
        assert file.place == Place(2, 2, 2)
        assert file.key_table().version == 2
        with closing(apsw.Connection(str(tmp_path / "copy.db"))) as db:
            assert [record.at_utc for _, record in read_audit(db, 9, AFTER_ALL)] == [at(1), at(0)]
