"""A journal remembers where its backups are."""

from contextlib import closing
from pathlib import Path

import apsw
import pytest
from msgspec import Raw

from tests.fakes import batch_of
from twincast.core.model import DataUpdate, Deleted
from twincast.errors import JournalUnavailable
from twincast.journal.sqlite import backup as sqlite_backup
from twincast.journal.sqlite.backups import BACKUPS, PLACES_MAX, Backup, note, noted
from twincast.journal.sqlite.erasures import note_erased
from twincast.journal.sqlite.file import SqliteFile
from twincast.journal.sqlite.health import facts

NOW_UTC = "2026-11-23T16:24:00.123456+00:00"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "journal.db"
    with closing(SqliteFile(str(path))) as file:
        file.append(batch_of([DataUpdate("lamp", Raw(b"1"), NOW_UTC, "rest")]))
    return path


def at(path: Path) -> list[Backup]:
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as db:
        return noted(db)


def test_the_newest_of_each_place_is_remembered_also_beside_a_server(path: Path) -> None:
    assert at(path) == []
    note(str(path), Backup("/monday", "here", 1, NOW_UTC))
    note(str(path), Backup("/tuesday", "here", 2, NOW_UTC))
    with closing(SqliteFile(str(path))) as file:
        note(str(path), Backup("/monday", "here", 3, NOW_UTC))
        file.append(batch_of([DataUpdate("lamp", Raw(b"2"), NOW_UTC, "rest")]))
    note(str(path), Backup("/monday", "there", 4, NOW_UTC))
    assert [(each.place, each.host, each.seq) for each in at(path)] == [
        ("/tuesday", "here", 2),
        ("/monday", "here", 3),
        ("/monday", "there", 4),
    ]


def test_so_many_places_are_remembered_and_foreign_texts_are_none(path: Path) -> None:
    for text in "no JSON", '{"place":1}':
        with closing(apsw.Connection(str(path))) as db:
            db.execute("insert or replace into meta values (?, ?)", (BACKUPS, text))
        assert at(path) == []
    for number in range(PLACES_MAX + 2):
        note(str(path), Backup(f"/{number}", "here", 1, NOW_UTC))
    assert [each.place for each in at(path)] == [f"/{number}" for number in range(2, PLACES_MAX + 2)]


def test_a_journal_that_cannot_be_written_says_so(path: Path) -> None:
    with closing(apsw.Connection(str(path))) as db:
        db.execute("create trigger full before insert on meta begin select raise(abort, 'no room'); end")
    with pytest.raises(JournalUnavailable):
        note(str(path), Backup("/monday", "here", 1, NOW_UTC))
    assert at(path) == []


def test_a_copy_for_another_server_does_not_know_of_them(path: Path, tmp_path: Path) -> None:
    note(str(path), Backup("/monday", "here", 1, NOW_UTC))
    with sqlite_backup.copied(str(path)) as copy:
        (tmp_path / "copy.db").write_bytes(copy.read())
    assert at(tmp_path / "copy.db") == []


def test_those_from_before_a_history_was_erased_are_named(path: Path) -> None:
    later = "2026-11-23T16:24:01.000000+00:00"
    note(str(path), Backup("/monday", "here", 1, NOW_UTC))
    with closing(SqliteFile(str(path))) as file:
        assert facts(str(path)).backups_with_erased == []
        file.append(batch_of([Deleted("lamp", NOW_UTC, "rest", scope="history")]))
        assert facts(str(path)).backups_with_erased == ["/monday on here"], "it is erased nowhere yet"
        pending = file.erasing()
        file.change(lambda db: note_erased(db, pending, later))
    assert facts(str(path)).erasing == 0
    note(str(path), Backup("/tuesday", "here", 2, "2026-11-23T16:24:02.000000+00:00"))
    assert facts(str(path)).backups_with_erased == ["/monday on here"]
    note(str(path), Backup("/monday", "here", 2, "2026-11-23T16:24:02+00:00"))
    assert facts(str(path)).backups_with_erased == []
