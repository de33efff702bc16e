"""The table that `twincast watch` shows: one line a device, in an order that stays."""

from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from rich.cells import cell_len
from rich.console import Group
from rich.table import Table
from rich.text import Text

from twincast.cli.columns import shortened, widths
from twincast.cli.units import counted
from twincast.client import Event

FRESH_S = 2.0
AGE_CELLS, EVENTS_CELLS = 6, 7
HELP = "↑↓ PgUp PgDn: scroll  s: sort  q: quit"
_encode = msgspec.json.Encoder().encode


class _Row(NamedTuple):
    at: str
    value: Any
    events: int


class LiveTable:
    """The newest value of every device, as a table that is sorted and scrolled."""

    ORDERS = ("name", "newest", "events")

    def __init__(self) -> None:
        self.has_keys = False
        """Whether keys are read, so that the help line is shown."""
        self.waiting = ""
        """Why there is no connection at the moment."""
        self._rows: dict[str, _Row] = {}
        self._names: list[str] = []
        self._is_sorted = True  # whether these are the names of the rows, in order
        self._longest = 1
        self._events = 0
        self._command = ""
        self._order = 0
        self._top = 0
        self._shown = 1

    def take(self, event: Event, *, is_new: bool = True) -> None:
        """Apply one event; one that is not new belongs to the initial state."""
        device = event.device_id
        if event.kind == "control":
            args = f" {text_of(event.args)}" if event.args else ""
            self._command = f"{device}: {event.command}{args}"
            return
        if event.kind == "deleted":
            self._events += event.merged
            self._is_sorted &= self._rows.pop(device, None) is None
            return
        merged = event.merged if is_new else 0
        before = self._rows.get(device)
        if before is None:
            self._is_sorted = False
            self._longest = max(self._longest, cell_len(device))
        self._events += merged
        self._rows[device] = _Row(event.timestamp_utc, event.value, merged + (before.events if before else 0))

    def press(self, key: str) -> None:
        """Scroll, or take the next order."""
        page = max(1, self._shown - 1)
        if key == "sort":
            self._order = (self._order + 1) % len(self.ORDERS)
            self._top = 0
        elif key == "home":
            self._top = 0
        elif key == "end":
            self._top = len(self._rows)
        else:
            self._top += {"up": -1, "down": 1, "page up": -page, "page down": page}.get(key, 0)
        self._clamp()

    def drawn(self, now: datetime, width: int, height: int) -> Group:
        """Draw what fits into a terminal."""
        below = self._below()
        self._shown = max(1, height - 1 - len(below))
        self._clamp()
        shared = widths(width, self._longest, (AGE_CELLS, EVENTS_CELLS))
        table = Table(box=None, padding=(0, shared.gap, 0, 0), pad_edge=False, header_style="bold")
        table.add_column("Device", width=shared.name, no_wrap=True)
        table.add_column("Value", width=shared.value, no_wrap=True, overflow="ellipsis")
        table.add_column("Age", width=AGE_CELLS, no_wrap=True, justify="right")
        if not shared.is_narrow:
            table.add_column("Events", width=EVENTS_CELLS, no_wrap=True, justify="right")
        for device in self._ordered()[self._top : self._top + self._shown]:
            row = self._rows[device]
            age_s = max(0.0, (now - datetime.fromisoformat(row.at)).total_seconds())
            style = "bold green" if age_s < FRESH_S else "none"
            # As Text, because a device's text is not markup.
            cells = [Text(shortened(device, shared.name), style), Text(text_of(row.value), style)]
            table.add_row(*cells, _age(age_s), *([] if shared.is_narrow else [str(row.events)]))
        return Group(table, *(Text(line, "dim", no_wrap=True, overflow="ellipsis") for line in below))

    def _ordered(self) -> list[str]:
        if not self._is_sorted:
            self._names, self._is_sorted = sorted(self._rows), True
        order, rows = self.ORDERS[self._order], self._rows
        if order == "newest":
            return sorted(self._names, key=lambda name: rows[name].at, reverse=True)
        if order == "events":
            return sorted(self._names, key=lambda name: -rows[name].events)
        return self._names

    def _below(self) -> list[str]:
        place = f", from {self._top + 1:,}" if self._top else ""
        lines = [
            f"{counted(len(self._rows), 'device')} by {self.ORDERS[self._order]}{place}; "
            f"{counted(self._events, 'event')}"
        ]
        if self._command:
            lines.append(f"last command to {self._command}")
        if self.waiting:
            lines.append(f"waiting: {self.waiting}")
        return [*lines, HELP] if self.has_keys else lines

    def _clamp(self) -> None:
        self._top = max(0, min(self._top, len(self._rows) - self._shown))


def text_of(value: Any) -> str:
    """Return a value as JSON."""
    return _encode(value).decode()


def _age(age_s: float) -> str:
    if age_s < 60:
        return f"{age_s:.1f} s"
    return f"{age_s / 60:.0f} min" if age_s < 3600 else f"{age_s / 3600:.0f} h"
