"""A system that this one is not, as far as a process can pretend: run by `python -m tests.elsewhere SYSTEM …`.

`windows` has no POSIX modules, nor what of `os`, `signal` and `socket` Windows lacks; its event loops take no signal
handlers, its folders cannot be opened, a file is not replaced or removed while it is open, and `sys.platform` says
win32. `macos` has POSIX, but no uvloop, no locks by open file and no disk quota in its errors.

What is not pretended: the loop is a selector's and not a proactor's, SQLite is that of POSIX, paths have slashes.
Libraries are imported before, as they are here: it is twincast that is tried.
"""

import asyncio
import errno
import importlib
import os
import signal
import socket
import sys
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any, NoReturn

THEN, STATUS = "--then", "status: "
LIBRARIES = (
    *("typer", "typer.rich_utils", "rich.live", "rich.progress", "rich.table", "rich.console", "httpx", "filelock"),
    *("websockets.asyncio.client", "psutil", "dotenv", "msgspec", "apsw", "fastapi", "uvicorn", "uvicorn.main", "jwt"),
    *("uvicorn.protocols.http.httptools_impl", "pydantic_settings"),
    *("uvicorn.protocols.websockets.auto", "uvicorn.loops.asyncio", "uvicorn.lifespan.on"),
    *("anyio._backends._asyncio", "getpass", "subprocess", "concurrent.futures.thread", "rich._windows_renderer"),
)
HIDDEN = {
    "windows": {"fcntl", "resource", "termios", "tty", "pwd", "grp", "uvloop", "picows"},
    "macos": {"uvloop"},
}
ABSENT: dict[str, dict[Any, tuple[str, ...]]] = {
    "windows": {
        os: (
            "getuid",
            "geteuid",
            "getgid",
            "fchown",
            "chown",
            "pwrite",
            "getpgrp",
            "tcgetpgrp",
            "O_CLOEXEC",
        ),
        signal: ("SIGHUP", "SIGTSTP", "SIGSTOP", "SIGKILL", "SIGQUIT"),
        socket: ("TCP_NOTSENT_LOWAT", "SO_REUSEPORT"),
        errno: ("EDQUOT",),
    },
    "macos": {os: (), errno: ("EDQUOT",)},
}


class Hiding(MetaPathFinder):
    """Finds none of the modules that another system has not."""

    def __init__(self, hidden: set[str]) -> None:
        self._hidden = hidden

    def find_spec(self, fullname: str, path: object = None, target: ModuleType | None = None) -> None:
        """Refuse what is hidden."""
        if fullname.partition(".")[0] in self._hidden:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


def pretend(system: str) -> None:
    """Be another system from now on, for whatever of twincast is imported."""
    for name in LIBRARIES:
        try:
            importlib.import_module(name)
        except ImportError:
            continue
    hidden = HIDDEN[system]
    for name in [name for name in sys.modules if name.partition(".")[0] in hidden]:
        del sys.modules[name]
    sys.meta_path.insert(0, Hiding(hidden))
    for module, names in ABSENT[system].items():
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    if system == "windows":
        _as_windows()
    else:
        sys.platform = "darwin"


def _as_windows() -> None:
    def no_handler(*_: object) -> NoReturn:
        raise NotImplementedError

    asyncio.SelectorEventLoop.add_signal_handler = no_handler  # type: ignore[assignment, method-assign]
    asyncio.ProactorEventLoop = asyncio.SelectorEventLoop  # type: ignore[attr-defined]
    keys = ModuleType("msvcrt")
    keys.kbhit = lambda: False  # type: ignore[attr-defined]
    sys.modules["msvcrt"] = keys
    os.open = _without_folders(os.open)
    for name in ("replace", "rename", "unlink", "remove"):
        setattr(os, name, _without_open_files(getattr(os, name)))
    sys.platform = "win32"


def _without_folders(really_open: Callable[..., int]) -> Callable[..., int]:
    def opened(path: Any, *how: Any, **options: Any) -> int:
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return really_open(path, *how, **options)

    return opened


def _without_open_files(really: Callable[..., None]) -> Callable[..., None]:
    def done(*paths: Any, **options: Any) -> None:
        for path in paths:
            if (held := _held()) & {os.path.realpath(path)}:
                raise PermissionError(errno.EACCES, f"used by another process: {held}", path)
        really(*paths, **options)

    return done


def _held() -> set[str]:
    """Return the files that this process has open."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            continue
    return found


def main() -> None:
    """Pretend, then run a program (`-c TEXT`), or commands with THEN between them, whose statuses are printed."""
    pretend(sys.argv[1])
    from twincast.cli.main import main  # noqa: PLC0415

    words = sys.argv[2:]
    if words[0] == "-c":
        exec(words[1], {"__name__": "__main__"})
        return
    while words:
        end = words.index(THEN) if THEN in words else len(words)
        sys.argv, words = ["twincast", *words[:end]], words[end + 1 :]
        try:
            main()
        except SystemExit as ended:
            print(f"{STATUS}{ended.code}", flush=True)


if __name__ == "__main__":
    main()
