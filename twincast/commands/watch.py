"""`twincast watch`: every device live in the terminal, or one JSON line a change into a pipe."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any

import msgspec
from rich.live import Live
from rich.table import Table
from rich.text import Text

from twincast.client import Message, connections
from twincast.commands.terminal import out, say_waiting
from twincast.errors import ServerUnreachable

FRESH_S = 2.0
_encode = msgspec.json.Encoder().encode


class Board:
    """The newest value of every device that matches, as a table, the newest change on top."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = patterns
        self._twins: dict[str, tuple[str, Any, int]] = {}
        self._changes = 0
        self._command = ""

    def matches(self, name: str) -> bool:
        """Whether a device or a command's target is asked for."""
        return not self._patterns or any(fnmatchcase(name, pattern) for pattern in self._patterns)

    def start(self, hello: Message) -> None:
        """Begin from the state that a hello brings."""
        twins = [(d, t) for d, t in hello["data_snapshot"].items() if self.matches(d)]
        twins.sort(key=lambda item: item[1]["seq"])
        self._twins = {device: (twin["updated_at_utc"], twin["value"], 0) for device, twin in twins}

    def take(self, message: Message) -> None:
        """Take in one message that matches."""
        if message["type"] == "control":
            args = f" {_text(message['args'])}" if message["args"] else ""
            self._command = f"{message['target']}: {message['command']}{args}"
            return
        device = message["device_id"]
        _, _, count = self._twins.pop(device, (None, None, 0))
        self._changes += message.get("merged", 1)
        self._twins[device] = (message["timestamp_utc"], message["value"], count + message.get("merged", 1))

    def table(self, now: datetime, rows: int) -> Table:
        """Draw as many devices as fit, the newest change first."""
        table = Table(expand=True, caption=self._caption(rows), caption_justify="left")
        table.add_column("Device", no_wrap=True)
        table.add_column("Value", ratio=1, no_wrap=True)
        table.add_column("Changes", justify="right")
        table.add_column("Age", justify="right", min_width=6)
        for _, device in zip(range(rows), reversed(self._twins), strict=False):
            at, value, changes = self._twins[device]
            age_s = max(0.0, (now - datetime.fromisoformat(at)).total_seconds())
            style = "bold green" if age_s < FRESH_S else "none"
            # As Text, because a device's words are no markup.
            table.add_row(Text(device, style), Text(_text(value), style), str(changes), _age(age_s))
        return table

    def _caption(self, rows: int) -> Text:
        hidden = max(0, len(self._twins) - rows)
        more = f", {hidden:,} more below" if hidden else ""
        command = f"; last command to {self._command}" if self._command else ""
        return Text(f"{len(self._twins):,} devices{more}; {self._changes:,} changes{command}")


async def watch(url: str, patterns: Sequence[str]) -> None:
    """Show what a server casts until it is interrupted; reconnect by itself.

    Args:
        url: the server.
        patterns: which devices, as in a shell: `lab/*`. None means all.
    """
    board = Board(patterns)
    if not sys.stdout.isatty():
        await _print_lines(url, board)
        return

    def picture() -> Table:
        return board.table(datetime.now(UTC), rows=max(1, out.size.height - 6))

    with Live(get_renderable=picture, console=out, refresh_per_second=5, screen=True):
        async for hub in connections(url, waiting=None):
            board.start(hub.hello)
            try:
                async for message in hub:
                    if board.matches(_name(message)):
                        board.take(message)
            except ServerUnreachable:
                continue


async def _print_lines(url: str, board: Board) -> None:
    async for hub in connections(url, waiting=say_waiting):
        try:
            async for message in hub:
                if board.matches(_name(message)):
                    print(_text(message), flush=True)
        except ServerUnreachable:
            continue


def _name(message: Message) -> str:
    name: str = message.get("device_id") or message["target"]
    return name


def _text(value: Any) -> str:
    return _encode(value).decode()


def _age(age_s: float) -> str:
    if age_s < 60:
        return f"{age_s:.1f} s"
    return f"{age_s / 60:.0f} min" if age_s < 3600 else f"{age_s / 3600:.0f} h"
