"""`twincast status`, `twincast control` and `twincast delete`: one question, one answer."""

import json
from datetime import timedelta
from typing import Any

import msgspec
from rich.table import Table
from rich.text import Text

from twincast.client import Rest
from twincast.commands.send import value_of
from twincast.commands.terminal import out


def control(url: str, target: str, command: str, args: list[str]) -> None:
    """Send a command to everyone who watches.

    Raises:
        ValueError: the arguments are neither a JSON object nor NAME=VALUE pairs.
        TwincastError: the server refused it, or is not there.
    """
    with Rest(url) as rest:
        event = rest.control(target, command, args_of(args))
    out.print(f"dispatched as number {event['seq']:,}")


def delete(url: str, device_id: str) -> None:
    """Delete a device.

    Raises:
        TwincastError: there is none of that name, or the server refused it, or is not there.
    """
    with Rest(url) as rest:
        event = rest.delete(device_id)
    out.print(f"deleted {device_id}, as number {event['seq']:,}", soft_wrap=True)


def args_of(words: list[str]) -> dict[str, Any]:
    """Return a command's arguments: one JSON object, or NAME=VALUE pairs whose values are JSON or else text.

    Raises:
        ValueError: they are something else.
    """
    if len(words) == 1 and words[0].lstrip().startswith("{"):
        try:
            return msgspec.json.decode(words[0], type=dict[str, msgspec.Raw])
        except msgspec.DecodeError as error:
            raise ValueError(f"ARGS is not a JSON object: {error}") from None
    pairs = [word.partition("=") for word in words]
    for name, equals, _ in pairs:
        if not name or not equals:
            raise ValueError(f"ARGS takes a JSON object or NAME=VALUE pairs, not {name!r}")
    return {name: value_of(value) for name, _, value in pairs}


def status(url: str, *, as_json: bool) -> bool:
    """Print how the server is; return whether it is well.

    Raises:
        TwincastError: the server is not there.
    """
    with Rest(url) as rest:
        answer = rest.status()
    if as_json:
        print(json.dumps(answer))
    else:
        table = Table.grid(padding=(0, 2))
        for name, value in answer.items():
            table.add_row(Text(name, "bold"), Text(_shown(name, value)))
        out.print(table)
    return bool(answer["ok"])


def _shown(name: str, value: Any) -> str:
    if name == "uptime_s":
        return str(timedelta(seconds=int(value)))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)
