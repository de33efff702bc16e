"""A program that ends with the process that started it, however that ends, where the system can promise it."""

import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

_LAUNCH = (
    "import ctypes, os, sys\n"
    "ctypes.CDLL(None).prctl(1, 9)\n"  # PR_SET_PDEATHSIG, SIGKILL; it outlives the exec
    "os.getppid() == int(sys.argv[1]) or sys.exit('its starter has ended')\n"
    "os.execv(sys.argv[2], sys.argv[2:])"
)
"""A program of its own sets this, as Python code between fork and exec may wait for a lock that another thread of the
starter holds."""


def start_child(
    command: Sequence[str],
    *,
    output: IO[bytes],
    pass_fds: Sequence[int] = (),
    env: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program, apart from the terminal: Ctrl-C is for its starter, which ends it in its own time.

    On Linux it is killed when this process ends, however that happens. Elsewhere whoever started it has to end it.

    Args:
        command: the path of the program, and its arguments.
        output: where it writes, errors too.
        pass_fds: what it has open besides.
        env: its environment; this process's if None.
        folder: where it runs; where this process does if None.

    Raises:
        OSError: it cannot be started.
    """
    command = list(command)
    if sys.platform == "linux":
        command = [sys.executable, "-ISc", _LAUNCH, str(os.getpid()), *command]
    outcome: list[subprocess.Popen[bytes] | OSError] = []
    started = threading.Event()

    def keep() -> None:
        """Start it, and stay: on Linux it ends with the thread that started it."""
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=pass_fds,
                env=env,
                cwd=folder,
                start_new_session=True,
            )
        except OSError as error:
            outcome.append(error)
            started.set()
            return
        outcome.append(process)
        started.set()
        process.wait()

    threading.Thread(target=keep, name=f"{os.path.basename(command[-1])} runs", daemon=True).start()
    started.wait()
    if isinstance(outcome[0], OSError):
        raise outcome[0]
    return outcome[0]
