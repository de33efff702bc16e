"""Keys as they are pressed, where standard input is a terminal: termios on POSIX, msvcrt on Windows, none elsewhere."""

import asyncio
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

if sys.platform == "win32":
    import msvcrt
else:
    try:
        import termios
        import tty
    except ImportError:  # a POSIX without them; then there are no keys
        termios = None  # type: ignore[assignment]

_POSIX = {
    "\x1b[A": "up", "\x1bOA": "up", "k": "up",
    "\x1b[B": "down", "\x1bOB": "down", "j": "down",
    "\x1b[5~": "page up", "\x1b[6~": "page down", " ": "page down",
    "\x1b[H": "home", "\x1bOH": "home", "\x1b[1~": "home", "g": "home",
    "\x1b[F": "end", "\x1bOF": "end", "\x1b[4~": "end", "G": "end",
    "s": "sort", "q": "quit",
}  # fmt: skip
_WINDOWS = {"H": "up", "P": "down", "I": "page up", "Q": "page down", "G": "home", "O": "end"}
_KEY = re.compile(r"\x1b[\[O][0-9;]*[~A-Za-z]|.", re.DOTALL)


def keys_of(text: str) -> list[str]:
    """Return the names of the keys that a terminal sent; those without a meaning here are left out."""
    return [name for key in _KEY.findall(text) if (name := _POSIX.get(key))]


class Keyboard:
    """Reads keys between `start` and `stop`, after which the terminal is as it was."""

    def __init__(self, pressed: Callable[[str], None]) -> None:
        self._pressed = pressed

    def start(self) -> bool:
        """Begin; return whether there are keys to be read."""
        return False

    def stop(self) -> None:
        """Leave the terminal as it was. May be called again."""

    def poll(self) -> None:
        """Read keys on systems that do not signal them."""


class _Posix(Keyboard):
    _before: list[Any] | None = None

    def start(self) -> bool:
        """See Keyboard."""
        if sys.platform == "win32" or termios is None or not _is_ours(sys.stdin.fileno()):
            return False
        descriptor = sys.stdin.fileno()
        self._before = termios.tcgetattr(descriptor)
        tty.setcbreak(descriptor, termios.TCSANOW)
        asyncio.get_running_loop().add_reader(descriptor, self._read, descriptor)
        return True

    def stop(self) -> None:
        """See Keyboard."""
        if sys.platform == "win32" or self._before is None:
            return
        before, self._before = self._before, None
        descriptor = sys.stdin.fileno()
        asyncio.get_running_loop().remove_reader(descriptor)
        with suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(descriptor, termios.TCSANOW, before)

    def _read(self, descriptor: int) -> None:
        try:
            read = os.read(descriptor, 1024)
        except OSError:
            read = b""
        if not read:  # the terminal is gone, and would be read for ever
            asyncio.get_running_loop().remove_reader(descriptor)
            self._pressed("quit")
        for key in keys_of(read.decode(errors="replace")):
            self._pressed(key)


class _Windows(Keyboard):
    def start(self) -> bool:
        """See Keyboard."""
        return True

    def poll(self) -> None:
        """See Keyboard."""
        if sys.platform == "win32":
            while msvcrt.kbhit():
                key = msvcrt.getwch()
                name = _WINDOWS.get(msvcrt.getwch()) if key in "\0\xe0" else _POSIX.get(key)
                if name:
                    self._pressed(name)


def keyboard(pressed: Callable[[str], None]) -> Keyboard:
    """Return the keyboard of this machine; one without keys if standard input is no terminal."""
    if sys.stdin is None or not sys.stdin.isatty():
        return Keyboard(pressed)
    return _Windows(pressed) if sys.platform == "win32" else _Posix(pressed)


def _is_ours(descriptor: int) -> bool:
    """Whether this process may change the terminal: one in the background would be stopped for it."""
    try:
        return os.tcgetpgrp(descriptor) == os.getpgrp()
    except OSError:  # it is not the terminal that this session is controlled by
        return True
