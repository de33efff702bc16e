"""`twincast watch`: every device live in the terminal, or one JSON line a change into a pipe."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from rich.live import Live
from rich.table import Table
from rich.text import Text

from twincast.client import Change, connect
from twincast.commands import rights
from twincast.commands.terminal import out, say_waiting

FRESH_S = 2.0
_encode = msgspec.json.Encoder().encode


class Board:
    """The newest value of every device, as a table, the newest change on top."""

    def __init__(self) -> None:
        self._twins: dict[str, tuple[str, Any, int]] = {}
        self._changes = 0
        self._command = ""

    def take(self, change: Change, *, is_new: bool = True) -> None:
        """Take in one change; one that is not new is where the board begins."""
        device = change.device_id
        if change.kind == "control":
            args = f" {_text(change.args)}" if change.args else ""
            self._command = f"{device}: {change.command}{args}"
            return
        if change.kind == "deleted":
            self._twins.pop(device, None)
            self._changes += change.merged
            return
        merged = change.merged if is_new else 0
        _, _, count = self._twins.pop(device, (None, None, 0))
        self._changes += merged
        self._twins[device] = (change.timestamp_utc, change.value, count + merged)

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
        patterns: which devices, such as `lab/*`. None means all.
    """
    if not sys.stdout.isatty():
        async with (
            connect(url, devices=(), timeout_s=None, on_link=say_waiting) as hub,
            hub.watch(*patterns) as changes,  # from here on, so that nothing is missed while rights are asked for
        ):
            await rights.require_read(url, patterns)
            async for change in changes:
                print(_line(change), flush=True)
        return
    board = Board()

    def picture() -> Table:
        return board.table(datetime.now(UTC), rows=max(1, out.size.height - 6))

    with Live(get_renderable=picture, console=out, refresh_per_second=5, screen=True):
        async with connect(url, patterns or "*", timeout_s=None) as hub:
            await rights.require_read(url, patterns)
            began_seq = hub.position.seq if hub.position else 0
            async for change in hub.watch(*patterns, initial=True):
                board.take(change, is_new=change.seq > began_seq)


def _line(change: Change) -> str:
    """Return a change as the wire has it."""
    said: dict[str, Any]
    if change.kind == "control":
        said = {"type": change.kind, "target": change.device_id, "command": change.command, "args": change.args}
    elif change.kind == "deleted":
        said = {"type": change.kind, "device_id": change.device_id}
    else:
        said = {"type": change.kind, "device_id": change.device_id, "value": change.value}
    said |= {"timestamp_utc": change.timestamp_utc, "source": change.source, "seq": change.seq, "epoch": change.epoch}
    return _text(said | {"merged": change.merged} if change.merged > 1 else said)


def _text(value: Any) -> str:
    return _encode(value).decode()


def _age(age_s: float) -> str:
    if age_s < 60:
        return f"{age_s:.1f} s"
    return f"{age_s / 60:.0f} min" if age_s < 3600 else f"{age_s / 3600:.0f} h"
