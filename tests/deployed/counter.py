"""A publisher that counts while machines fail."""

import os
import subprocess
import sys
import threading
from pathlib import Path

from tests.deployed.machine import DEADLINE_S
from tests.running import ROOT

STEP_S = 0.03


class Counter:
    """`twincast send` with 1, 2, 3, … on its standard input, until it is told to finish."""

    def __init__(self, url: str, key: str, ca: Path, printed: Path) -> None:
        env = {**os.environ, "TWINCAST_URL": url, "TWINCAST_TOKEN": key, "SSL_CERT_FILE": str(ca)}
        command = [sys.executable, "-m", "twincast", "send", "counter", "-"]
        self._printed = printed
        with printed.open("w") as output:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=env, text=True, stdin=subprocess.PIPE, stdout=output, stderr=output
            )
        self._count = 0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._feed)
        self._thread.start()

    def _feed(self) -> None:
        assert self._process.stdin is not None
        with self._process.stdin as lines:
            while not self._is_over.wait(STEP_S):
                self._count += 1
                lines.write(f"{self._count}\n")
                lines.flush()

    def finish(self) -> int:
        """Return how many readings there were, once all are stored."""
        self._is_over.set()
        self._thread.join(DEADLINE_S)
        assert self._process.wait(DEADLINE_S) == 0, self._printed.read_text()
        return self._count

    def kill(self) -> None:
        self._is_over.set()
        self._process.kill()
        self._process.wait()
