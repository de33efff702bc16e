"""Deletions of histories, carried out on the journal's own file: rows, free pages, and what waits in the -wal.

A row that goes leaves its place, see core/erasure. SQLite leaves the bytes of what is deleted where they were, until
something else comes there: with `secure_delete` it writes zeros over them, but not over pages that were free before.
Those are taken once by a table that holds nothing but zeros.
"""

from collections.abc import Sequence
from itertools import compress
from typing import Any

import apsw

from twincast.core.erasure import Erasure, Erasures, HeldBy, up_to
from twincast.journal.sqlite.history.layout import ERASED, KINDS

SLICE_ENTRIES = 2_000
"""So many entries of the log are looked at in one transaction: one or two milliseconds, for which commits wait."""
ZEROS_PAGES = 64
"""So many pages that are free are written over in one transaction."""

ERASED_AT = "erased_at_utc"
"""In the table `meta`, when a history was erased last: copies from before may have it."""

_PENDING = "select seq, device_id, at_utc from erasure where not is_erased order by seq"
_HELD = "select seq, device_id, at_utc, not is_erased, stream_seq is not null from erasure order by seq"
_NO_LONGER_HELD = "delete from erasure where is_erased and stream_seq is null"
_ROWS = "select seq, device_id, timestamp_utc from log where seq >= ? and seq <= ? order by seq"
_ERASE = f"""
update log set type = '{KINDS[ERASED]}', device_id = '', value = 'null', command = null, timestamp_utc = ?2,
               source = 'application', measured_at_utc = null
where seq = ?1
"""
# A key that comes again is refused, neither dropped nor stored anew: nothing has this digest.
_ERASE_DIGEST = """
update receipt set digest = '' where last_seq >= ?1
    and first_seq = (select max(first_seq) from receipt where first_seq <= ?1)
"""
_HAS_ZEROS = "select count(*) from sqlite_schema where name = 'zeros'"
_ZEROS = "create table if not exists zeros (id integer primary key, filled blob not null)"


def erasures_of(db: apsw.Connection, journal: str = "main") -> Erasures:
    """Return up to where the entries of devices are to be erased, as far as that is not carried out yet."""
    return up_to(pending(db, journal))


def pending(db: apsw.Connection, journal: str = "main") -> list[Erasure]:
    """Return the deletions of histories that the files still have, in the order of their positions."""
    return [Erasure(*row) for row in db.execute(_PENDING.replace("erasure", f"{journal}.erasure"))]


def note(db: apsw.Connection, erasures: Sequence[Erasure], stream_seq: int | None = None) -> None:
    """Remember deletions of histories until they are carried out. Within the transaction that stores them."""
    db.executemany(
        "replace into erasure values (?, ?, ?, false, ?)",
        [(each.seq, each.device_id, each.at_utc, stream_seq) for each in erasures],
    )


def note_erased(db: apsw.Connection, erasures: Sequence[Erasure], now_utc: str) -> None:
    """Take note that deletions are carried out on the file and its partitions. Within a transaction."""
    db.execute("insert or replace into meta values (?, ?)", (ERASED_AT, now_utc))
    db.executemany("update erasure set is_erased = true where seq = ?", [(erasure.seq,) for erasure in erasures])
    db.execute(_NO_LONGER_HELD)


def note_stream(db: apsw.Connection, first_stream_seq: int) -> None:
    """Take note of where the stream of a shared log begins. Within a transaction."""
    db.execute("update erasure set stream_seq = null where stream_seq < ?", (first_stream_seq,))
    db.execute(_NO_LONGER_HELD)


def newest_in_stream(db: apsw.Connection) -> int:
    """Return the newest message of a shared log's stream up to which that is to go; 0 if none is."""
    return int(db.execute("select coalesce(max(stream_seq), 0) from erasure").get)


def held(db: apsw.Connection) -> list[Erasure]:
    """Return the deletions of histories that are not carried out everywhere, each with what still has it."""
    which: tuple[HeldBy, HeldBy] = ("files", "stream")
    rows: list[Any] = db.execute(_HELD).fetchall()
    return [Erasure(seq, name, at_utc, tuple(compress(which, held_by))) for seq, name, at_utc, *held_by in rows]


def erase_rows(db: apsw.Connection, first: int, last: int, erasures: Erasures) -> int:
    """Leave places of what is erased in a slice of the log; return how many. Within a transaction.

    Args:
        db: the connection, which writes zeros over what goes.
        first: the first position of the slice; in what is before it nothing is left to be erased.
        last: its last position.
        erasures: up to where entries are erased, by device.
    """
    rows: list[Any] = db.execute(_ROWS, (first, last)).fetchall()
    gone = [row for row in rows if row[0] < erasures.get(row[1], 0)]
    if not gone:
        return 0
    at_utc = db.execute("select timestamp_utc from log where seq = ?", (first - 1,)).get
    if at_utc is None:
        at_utc = _first_kept(db, first, erasures)
    places: list[tuple[int, str]] = []
    for seq, device_id, stored_at_utc in rows:
        if seq < erasures.get(device_id, 0):
            places.append((seq, at_utc))
        else:
            at_utc = stored_at_utc
    db.executemany(_ERASE, places)
    db.executemany(_ERASE_DIGEST, [(seq,) for seq, _ in places])
    return len(places)


def _first_kept(db: apsw.Connection, first: int, erasures: Erasures) -> str:
    """Return when the first entry from a position on was stored that stays: one of the deletions, if not before."""
    for seq, device_id, at_utc in db.execute("select seq, device_id, timestamp_utc from log where seq >= ?", (first,)):
        if seq >= erasures.get(device_id, 0):
            return str(at_utc)
    return "1970-01-01T00:00:00.000000+00:00"


def fill_free_pages(db: apsw.Connection) -> int:
    """Write zeros over some of the pages that are free; return how many the zeros take, 0 if all are written over.

    Within a transaction. `let_go_of_zeros` makes the pages free again.
    """
    free = int(db.pragma("freelist_count"))
    if not free:
        return 0
    pages = min(free, ZEROS_PAGES)
    db.execute(_ZEROS)
    db.execute("insert into zeros (filled) values (zeroblob(?))", (_bytes_of(pages, int(db.pragma("page_size"))),))
    return pages


def let_go_of_zeros(db: apsw.Connection) -> bool:
    """Make some of the pages free again that zeros take; return whether there are more. Within a transaction."""
    if not db.execute(_HAS_ZEROS).get:
        return False
    newest = db.execute("select max(id) from zeros").get
    if newest is None:
        db.execute("drop table zeros")
        return False
    db.execute("delete from zeros where id = ?", (newest,))
    return True


def _bytes_of(pages: int, page_bytes: int) -> int:
    """Return the length of a blob that takes so many overflow pages, each of them whole.

    Of a page that is not whole the rest may be what it was. The format: https://www.sqlite.org/fileformat2.html
    """
    record_bytes = (page_bytes - 12) * 32 // 255 - 23 + pages * (page_bytes - 4)
    for type_bytes in range(1, 6):
        blob_bytes = record_bytes - 2 - type_bytes
        if (2 * blob_bytes + 12).bit_length() <= 7 * type_bytes:
            return blob_bytes
    raise AssertionError(f"{pages} pages are more than a blob takes")
