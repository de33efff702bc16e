"""Many readings into a journal that keeps little, while clients resume: does the disk fill, is anybody told a lie?

`scripts/soak --keep` runs it. Ten million readings take some minutes. What is checked: file and -wal never take more
than the bound; whoever resumes hears every change once and in order, or of a gap; afterwards the journal is whole and
has the newest value of each device.
"""

import argparse
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import requests

from tests.running import DEADLINE_S, ServerProcess
from twincast.journal.sqlite.file import SqliteFile
from twincast.journal.sqlite.health import facts, problems

DEVICES, BATCH = 10_000, 10_000
CLIENTS = 4


@dataclass
class Resumed:
    """What one client was told that asks again and again from where it is."""

    expected: int = 1
    resumes: int = 0
    gaps: int = 0
    wrong: list[str] = field(default_factory=list)


@dataclass
class Filling:
    """One run."""

    readings: int
    keep_bytes: str
    path: Path
    largest_bytes: int = 0
    is_over: bool = False
    slowest_s: float = 0.0

    def run(self) -> list[str]:
        """Fill the journal and return what was wrong."""
        server = ServerProcess(f"sqlite:{self.path}", TWINCAST_KEEP_BYTES=self.keep_bytes).ready()
        clients = [Resumed() for _ in range(CLIENTS)]
        try:
            bound_bytes = server.get("/api/status")["space"]["keep_bytes"]
            with ThreadPoolExecutor(CLIENTS + 1) as threads:
                asking = [threads.submit(self._resume, server, each, number) for number, each in enumerate(clients)]
                looking = threads.submit(self._look)
                try:
                    self._fill(server)
                finally:
                    self.is_over = True
                for each in (*asking, looking):
                    each.result()
            status = server.get("/api/status")
        finally:
            print(server.stop())
        print(f"resumes {sum(each.resumes for each in clients)}, gaps {sum(each.gaps for each in clients)}, each told")
        print(f"file and -wal at most {self.largest_bytes:,} bytes; at the end {status['space']}")
        print(facts(str(self.path)))
        wrong = [line for each in clients for line in each.wrong] + problems(str(self.path)) + self._state()
        if self.largest_bytes > bound_bytes:
            wrong.append(f"file and -wal took {self.largest_bytes:,} bytes, more than {bound_bytes:,}")
        return wrong

    def _fill(self, server: ServerProcess) -> None:
        began_s = time.monotonic()
        with requests.Session() as session:
            for first in range(0, self.readings, BATCH):
                body = ",".join(
                    f'{{"device_id":"hall/{n % DEVICES:05}","value":{{"celsius":21.5,"n":{n}}}}}'
                    for n in range(first, first + BATCH)
                )
                sent_s = time.monotonic()
                answer = session.post(
                    f"{server.url}/api/data",
                    data=f"[{body}]",
                    headers={"Content-Type": "application/json"},
                    timeout=DEADLINE_S,
                )
                answer.raise_for_status()
                self.slowest_s = max(self.slowest_s, time.monotonic() - sent_s)
                if first % 1_000_000 == 0:
                    took_s = time.monotonic() - began_s
                    print(f"{first + BATCH:>12,} stored in {took_s:.0f} s, {self.largest_bytes:,} bytes", flush=True)
        took_s = time.monotonic() - began_s
        print(f"{self.readings:,} in {took_s:.0f} s, {self.readings / took_s:,.0f}/s; slowest {self.slowest_s:.2f} s")

    def _look(self) -> None:
        wal = Path(f"{self.path}-wal")
        while not self.is_over:
            self.largest_bytes = max(self.largest_bytes, self.path.stat().st_size + wal.stat().st_size)
            time.sleep(0.05)

    def _resume(self, server: ServerProcess, client: Resumed, number: int) -> None:
        """Ask for what came behind the cursor, as devices of different patience do."""
        answer = server.get("/api/events?devices=hall/00000&limit=1")
        client.expected, since = answer["seq"] + 1, f"{answer['epoch']}:{answer['seq']}"
        pause = threading.Event()
        while not self.is_over:
            answer = server.get(f"/api/events?since={since}&limit=10000")
            since = f"{answer['epoch']}:{answer['seq']}"
            client.resumes += 1
            if answer["resumed"]:
                seqs = [event["seq"] for event in answer["events"]]
                if seqs != list(range(client.expected, client.expected + len(seqs))):
                    client.wrong.append(f"after {client.expected - 1} came {seqs[:1]} to {seqs[-1:]}, and no gap")
            elif answer["reason"] == "too_old":
                client.gaps += 1
            else:
                client.wrong.append(f"refused: {answer['reason']}")
            client.expected = answer["seq"] + 1
            pause.wait(0.2 * number**2)

    def _state(self) -> list[str]:
        file = SqliteFile(str(self.path))
        twins = file.snapshot().twins
        file.close()
        newest = {f"hall/{n % DEVICES:05}": n + 1 for n in range(max(0, self.readings - DEVICES), self.readings)}
        return [] if {name: twin.seq for name, twin in twins.items()} == newest else ["the state is not the newest"]


def main() -> None:
    """Run by `scripts/soak --keep`."""
    parser = argparse.ArgumentParser(prog="scripts/soak --keep", description=__doc__)
    parser.add_argument("--readings", type=int, default=10_000_000, help="how many, in whole batches of 10,000")
    parser.add_argument("--keep-bytes", default="200MB", help="as serve takes it")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wrong = Filling(given.readings // BATCH * BATCH, given.keep_bytes, Path(folder) / "journal.db").run()
    for line in wrong:
        print(line)
    print("the disk does not fill, and nobody was told a lie" if not wrong else f"{len(wrong)} things are wrong")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
