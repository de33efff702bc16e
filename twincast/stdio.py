r"""Standard input, output and error as a process finds them: closed, full, or in an encoding that lacks most letters.

What an encoding lacks is written as JSON escapes it, `\ud83c\udf21`: so a line of JSON stays the same JSON.
"""

import codecs
import io
import os
import sys
from typing import TextIO

_NUMBERS = (0, 1, 2)
_ESCAPED = "twincast-escaped"


def prepare() -> None:
    """Make standard output and error writable, and let no file or socket take the place of a closed one.

    A closed standard input stays None in `sys`; its reader reports it.
    """
    for number in _NUMBERS:
        try:
            os.fstat(number)
        except OSError:  # or the journal would get this number, and a print would write into it
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or _open(1)
    sys.stderr = sys.stderr or _open(2)
    codecs.register_error(_ESCAPED, _escape)
    if sys.platform == "win32" and not os.environ.get("PYTHONIOENCODING"):
        _speak_utf_8_to_programs()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ESCAPED)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # a line that is not text is one bad line then


def _speak_utf_8_to_programs() -> None:
    """Write UTF-8 into pipes and files, as JSON is, where the system's default is a regional encoding."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not stream.isatty():
            stream.reconfigure(encoding="utf-8")


def settle() -> None:
    """Flush standard output and error.

    Raises:
        OSError: standard output cannot be written. What cannot be written to standard error is dropped.
    """
    try:
        sys.stderr.flush()
    except OSError:
        give_up(sys.stderr)
    sys.stdout.flush()


def give_up(stream: TextIO) -> None:
    """Send a stream to nowhere from now on, with what it still holds: that would fail again at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _open(number: int) -> io.TextIOWrapper:
    return io.TextIOWrapper(os.fdopen(number, "wb", closefd=False), encoding="utf-8")


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    escaped = (f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
    return "".join(escaped), error.end
