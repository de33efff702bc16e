"""Questions about the past over HTTP, as a client asks them: one after another on a connection that stays open."""

import http.client
import json
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, urlencode

import apsw

from benchmarks.loads.rest import Refused
from benchmarks.machine import ServerProcess
from twincast.journal.sqlite.history.slices import BLOCK_ENTRIES

T = TypeVar("T")
WARM, TIMES = 2, 15
TIMEOUT_S = 120.0


class Took(NamedTuple):
    """What a question takes: the median until the whole answer is there, and the mean of all processor time for it."""

    wall_ms: float
    cpu_ms: float


class Asked:
    """A server that is asked."""

    def __init__(self, process: ServerProcess, port: int) -> None:
        self._process = process
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)

    def wait_until_indexed(self, index: Path, entries: int) -> None:
        """Return once the server has indexed the open end of the log, as it does at its start, and rests.

        Args:
            index: the file.
            entries: how many are open.
        """
        until_s = time.monotonic() + TIMEOUT_S
        while time.monotonic() < until_s:
            self._process.wait_until_calm()
            if _indexed(index) > entries - BLOCK_ENTRIES:
                return
        raise TimeoutError("the server rests, and has not indexed the open end")

    def text(self, path: str) -> bytes:
        """Return the body of an answer. Raises Refused if it is not 200."""
        self._connection.request("GET", path)
        response = self._connection.getresponse()
        body = response.read()
        if response.status != http.client.OK:
            raise Refused(f"{response.status} {body[:400].decode()}")
        return body

    def answer(self, path: str) -> Any:
        """Return an answer, read."""
        return json.loads(self.text(path))

    def took(self, path: str) -> Took:
        """Return what a question takes."""
        return took(lambda: self.text(path), lambda: self._process.cpu_s)


def _indexed(index: Path) -> int:
    """Return how many entries an index of the open end has; 0 as long as it is written to."""
    if not index.exists():
        return 0
    with closing(apsw.Connection(str(index), flags=apsw.SQLITE_OPEN_READONLY)) as db:
        try:
            return int(db.execute("select count(*) from run").get)
        except apsw.Error:
            return 0


def took(do: Callable[[], object], cpu_s: Callable[[], float] = time.process_time) -> Took:
    """Return what something takes, whose processor time is counted by a clock; of this process if none is given."""
    for _ in range(WARM):
        do()
    walls_s, used_s = [], cpu_s()
    for _ in range(TIMES):
        began_s = time.perf_counter()
        do()
        walls_s.append(time.perf_counter() - began_s)
    return Took(1e3 * median(walls_s), 1e3 * (cpu_s() - used_s) / TIMES)


def of_device(name: str, **parameters: object) -> str:
    """Return the address of a device's history. `from_` is `from`."""
    query = urlencode([(each.rstrip("_"), str(value)) for each, value in parameters.items()])
    return f"/api/data/{quote(name, safe='')}/history?{query}"
