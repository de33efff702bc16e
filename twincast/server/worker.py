"""One worker of several: a server whose parent has opened the port, and tells it what to serve.

`python -m twincast.server.worker`, started by `workers` and by nobody else. Its standard input has one line, the task,
and then stays open for as long as the parent lives; its standard output takes one line, the report.
"""

import logging
import os
import socket
import sys
import threading
from typing import Any

import msgspec

from twincast import logs, stdio
from twincast.app import App
from twincast.errors import TwincastError
from twincast.server import process
from twincast.server.banner import Start
from twincast.settings import Settings

logger = logging.getLogger("twincast.server")

FAILED, ORPHANED = 1, 70
"""Exit statuses: it could not start, and has said why; its parent has ended (EX_SOFTWARE of sysexits.h)."""
_STDIN, _STDOUT, _STDERR = 0, 1, 2


class Task(msgspec.Struct, frozen=True):
    """What a worker is to serve."""

    name: str
    """What it is called in the log."""
    settings: dict[str, Any]
    """All of them, by name."""
    listeners: list[int]
    """The sockets that it inherits."""
    keeps_to_tls: bool
    """See `process.configured`."""
    has_successors: bool
    """See `process.run`."""


class Report(msgspec.Struct, frozen=True):
    """How a start went."""

    start: Start | None = None
    """What it knows of itself once it serves; None if it does not."""
    code: str = ""
    """Of the error."""
    problem: str = ""
    """The error, in words for the person who started it."""


def main() -> int:
    """Serve until a signal, or until the parent ends; return the exit status."""
    stdio.prepare()
    task = msgspec.json.decode(_first_line(), type=Task)
    reports = os.dup(_STDOUT)
    os.dup2(_STDERR, _STDOUT)  # what anything prints is no report
    threading.Thread(target=_end_with_the_parent, name="parent", daemon=True).start()
    try:
        return _serve(task, reports)
    except TwincastError as error:
        _say(reports, Report(code=error.code, problem=error.message))
        return FAILED


def _serve(task: Task, reports: int) -> int:
    settings = Settings(**task.settings)
    logs.configure(settings.log_format, settings.log_level, task.name)

    def started(app: App) -> None:
        _say(reports, Report(Start.of(app)))

    return process.run(
        settings,
        [socket.socket(fileno=number) for number in task.listeners],
        process.certificate_of(settings),
        keeps_to_tls=task.keeps_to_tls,
        on_start=started,
        is_worker=True,
        has_successors=task.has_successors,
    )


def _say(reports: int, report: Report) -> None:
    os.write(reports, msgspec.json.encode(report) + b"\n")
    os.close(reports)


def _first_line() -> bytes:
    """Return the task. Read by the byte: what follows it is the end, which another thread waits for."""
    line = b""
    while not line.endswith(b"\n"):
        if not (byte := os.read(_STDIN, 1)):
            sys.exit(ORPHANED)
        line += byte
    return line


def _end_with_the_parent() -> None:
    """End at once when the parent has ended, however that came: nobody would start what it kept running again."""
    while os.read(_STDIN, 1):
        pass
    logger.critical("the process that started this worker has ended; the worker ends with it")
    os._exit(ORPHANED)


if __name__ == "__main__":
    sys.exit(main())
