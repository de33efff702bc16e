"""What users build themselves: an index on the log, Parquet files under DuckDB, a collection of PocketBase."""

import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import apsw

from benchmarks.history.fleets import Fleet, fill, rows
from benchmarks.history.made import made_once, plain_log
from benchmarks.machine import SERVER_CORE, ServerProcess, free_port, installed, started

HAS_DUCKDB = find_spec("duckdb") is not None
DUCKDB_THREADS = 2
PAGE_RECORDS = 1_000
POCKETBASE_RECORDS = 1_000_000
_USER, _PASSWORD = "bench@example.org", "bench-password"  # of a server that lives for seconds, on loopback
_LOG_COLUMNS = "seq integer primary key, type, device_id, value, timestamp_utc, source"
Told = Callable[[str], None]


class IndexedLog:
    """All of a log in one table of SQLite, with an index by device and position; asked in this process."""

    name = "an index of a user's own on `log`"

    def __init__(self, fleet: Fleet, told: Told, *, index: bool = True) -> None:
        path = plain_log(fleet, told)
        self._db = apsw.Connection(str(path))
        if index:
            told(f"{fleet.name}: the user's index")
            self._db.execute("create index if not exists by_device on log (device_id, seq)")

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def newest(self, device: str, limit: int) -> list[Any]:
        """Return the newest readings of a device."""
        sql = "select seq, value, timestamp_utc, source from log where device_id = ? order by seq desc limit ?"
        return self._db.execute(sql, (device, limit)).fetchall()

    def charted(self, device: str, width_s: int) -> list[Any]:
        """Return start, average, least and greatest number of each bucket."""
        sql = """
select unixepoch(timestamp_utc) / :width * :width, avg(value), min(value + 0), max(value + 0)
from log where device_id = :device group by 1 order by 1"""
        return self._db.execute(sql, {"device": device, "width": width_s}).fetchall()

    def state(self, seq: int) -> list[Any]:
        """Return each device's newest reading up to a position, without the help of an index."""
        sql = "select device_id, value, max(seq) from log not indexed where seq <= ? group by device_id"
        return self._db.execute(sql, (seq,)).fetchall()


class Parquet:
    """Files of a million entries, sorted by device and time, under DuckDB in this process; without rollups."""

    name = "DuckDB over Parquet"

    def __init__(self, fleet: Fleet, told: Told) -> None:
        import duckdb  # noqa: PLC0415  # it is here only where benchmarks are run

        self._db = duckdb.connect(config={"threads": DUCKDB_THREADS})
        self._db.execute("set parquet_metadata_cache = true")

        def make(place: Path) -> None:
            for first in range(1, fleet.entries + 1, fleet.partition_entries):
                told(f"{fleet.name}: {first - 1:,} of {fleet.entries:,} entries as Parquet")
                last = min(first + fleet.partition_entries - 1, fleet.entries)
                made = rows(fleet, f"select range as n from range({first}, {last + 1})", "//")
                self._db.execute(
                    "copy (select printf('hall/%05d', device) as device_id, at_us, n as seq, whole + part / 10000.0 as"
                    f" number from ({made}) order by 1, 2) to '{place}/{first:012}.parquet' (compression zstd)"
                )

        self._files = f"{made_once(fleet, 'parquet', make)}/*.parquet"

    def close(self) -> None:
        """Let go of it."""
        self._db.close()

    def charted(self, device: str, from_us: int, to_us: int, width_us: int) -> list[Any]:
        """Return start, average, least and greatest number of each bucket."""
        sql = f"""
select at_us // ? * ? as start, avg(number), min(number), max(number) from read_parquet('{self._files}')
where device_id = ? and at_us >= ? and at_us < ? group by 1 order by 1"""
        return list(self._db.execute(sql, [width_us, width_us, device, from_us, to_us]).fetchall())


class PocketBasePages:
    """A collection of PocketBase that has readings and an index by device and time, asked over HTTP.

    Its records are put into its file, for its API takes 3,500 a second.
    """

    name = f"PocketBase, of {POCKETBASE_RECORDS:,} records"
    is_here = Path(installed("pocketbase")).exists()

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet._replace(entries=min(fleet.entries, POCKETBASE_RECORDS))

    @contextmanager
    def running(self) -> Iterator[tuple[ServerProcess, int]]:
        """Start it with all records; gives its process and its port."""
        with tempfile.TemporaryDirectory() as directory:
            data = Path(directory) / "data"
            program = [installed("pocketbase"), "--dir", str(data)]
            subprocess.run([*program, "superuser", "upsert", _USER, _PASSWORD], check=True, capture_output=True)
            with self._serving(program, None) as (_, port):
                _add_collection(port)
            self._fill(data / "data.db")
            with self._serving(program, SERVER_CORE) as both:
                yield both

    @contextmanager
    def _serving(self, program: list[str], core: int | None) -> Iterator[tuple[ServerProcess, int]]:
        port = free_port()
        with started([*program, "serve", "--http", f"127.0.0.1:{port}"], port, core=core) as process:
            yield process, port

    def _fill(self, file: Path) -> None:
        with closing(apsw.Connection(str(file))) as db:
            db.execute("attach ':memory:' as scratch")
            db.execute(
                "create table scratch.log (seq integer primary key, type, device_id, value, timestamp_utc, source)"
            )
            fill(db, self._fleet, 1, self._fleet.entries, table="scratch.log")
            with db:
                db.execute(
                    "insert into readings (id, device_id, value, at)"
                    " select printf('r%014d', seq), device_id, value, timestamp_utc from scratch.log"
                )

    def newest(self, device: str) -> str:
        """Return the address of the newest records of a device."""
        asked = {"filter": f"device_id='{device}'", "sort": "-at", "perPage": PAGE_RECORDS, "skipTotal": 1}
        return f"/api/collections/readings/records?{urlencode(asked)}"


def _add_collection(port: int) -> None:
    def call(path: str, body: object, token: str = "") -> dict[str, object]:
        headers = {"Content-Type": "application/json", "Authorization": token}
        request = Request(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(), headers)
        with urlopen(request, timeout=10) as response:
            answer: dict[str, object] = json.load(response)
            return answer

    login = {"identity": _USER, "password": _PASSWORD}
    token = call("/api/collections/_superusers/auth-with-password", login)["token"]
    fields = [{"name": "device_id", "type": "text"}, {"name": "value", "type": "json"}, {"name": "at", "type": "text"}]
    collection = {
        **{"name": "readings", "type": "base", "listRule": "", "fields": fields},
        "indexes": ["create index by_device on readings (device_id, at)"],
    }
    call("/api/collections", collection, str(token))
