"""The server's log: few lines, each safe to print, as text or as JSON."""

import json
import logging
import re
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal

from twincast.errors import masked

CONNECTION: ContextVar[int] = ContextVar("twincast_connection", default=0)
"""The number of the request that a line belongs to; 0 for none."""
_process = ""
"""What this process is called where several write one log; empty where it is the only one."""

# Line ends and escape codes that came in with a name would forge lines, or reach the terminal of whoever reads them;
# the marks of Unicode's bidirectional algorithm (UAX 9, 2) would let a line show another order than it has.
_BIDI = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))} | {
    code: f"\\u{code:04x}" for code in (0x2028, 0x2029, *_BIDI)
}
_BETWEEN_FIELDS = re.compile(r"""[\s"'`\\]""")
_TALKATIVE = ("httpx", "httpcore", "uvicorn.error", "websockets")
"""Loggers that write addresses with queries, heads and messages below the level of warnings, credentials among them."""


def configure(style: Literal["text", "json"], level: str, process: str = "") -> None:
    """Send the lines of this program and its libraries to standard error.

    Args:
        style: their form.
        level: from which on they are written.
        process: what this process is called in each, where others write to the same log.
    """
    global _process  # noqa: PLW0603  # of the process, as the root logger is
    _process = process
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in _TALKATIVE:
        _raise_level(name, logging.WARNING)


def keep_credentials_out() -> None:
    """Keep a server that is configured elsewhere from logging WebSocket heads and messages, as at level debug.

    Everything else is that server's own: at level info, the addresses of requests with their queries.
    """
    for name in _TALKATIVE:
        _raise_level(name, logging.INFO)


class TextFormatter(logging.Formatter):
    """One line per record, of fields between spaces, with a traceback below it, indented.

    No line of an error's text forges a record, and no name in it, a path or a subject, another field: each text that
    goes into a line of ours is one field. What is a sentence goes in as its error, or as the line itself.
    """

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        where = " ".join(filter(None, (_process, str(CONNECTION.get() or ""))))
        where = f" [{where}]" if where else ""
        line = f"{_time(record)} {record.levelname} {record.name}{where}: {escaped(masked(_message(record)))}"
        if record.exc_info:
            trace = masked(self.formatException(record.exc_info)).split("\n")
            line = "\n  ".join([line, *map(escaped, trace)])
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        told: dict[str, str | int] = {
            "time_utc": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": masked(record.getMessage()),
        }
        if _process:
            told["process"] = _process
        if connection := CONNECTION.get():
            told["connection"] = connection
        if record.exc_info:
            told["traceback"] = masked(self.formatException(record.exc_info))
        return json.dumps(told, separators=(",", ":"))  # in ASCII: nothing in it acts on the terminal that shows it


def escaped(text: str) -> str:
    """Return a text without anything that moves the cursor or ends the line."""
    return text.translate(_ESCAPES)


def _message(record: logging.LogRecord) -> str:
    if not isinstance(record.args, tuple) or not record.name.startswith("twincast"):
        return record.getMessage()
    return str(record.msg) % tuple(field(each) if isinstance(each, str) else each for each in record.args)


def field(text: str) -> str:
    """Return a text as one field: no space, quote or backslash in it, and never empty."""
    return _BETWEEN_FIELDS.sub(lambda found: _escape(found[0]), text) or "-"


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _raise_level(name: str, level: int) -> None:
    logger = logging.getLogger(name)
    logger.setLevel(max(logger.level, level))


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
