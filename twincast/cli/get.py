"""`twincast get`: the newest state, once."""

import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from msgspec import UNSET

from twincast import client
from twincast.cli.options import Fingerprint, Patterns, Url, commands, server_url
from twincast.cli.terminal import out
from twincast.core.pattern import Pattern
from twincast.errors import NotFound
from twincast.later import later
from twincast.wire.messages import encode

if TYPE_CHECKING:
    from twincast.cli import state_table
    from twincast.client.rest import RawTwin
else:
    state_table = later("twincast.cli.state_table")

app = commands()


@app.command()
def command(
    patterns: Patterns = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, as into a pipe.")] = False,
    url: Url = None,
    fingerprint: Fingerprint = None,
) -> None:
    """Print the newest state: a table, or JSON lines into a pipe; of one device that is named its value."""
    get(server_url(url, fingerprint), patterns or [], as_json=as_json)


def get(url: str, patterns: Sequence[str], *, as_json: bool) -> None:
    """Print the newest state of devices: a table, or JSON lines into a pipe; of one device that is named its value.

    Raises:
        NotFound: there are none.
        TwincastError: the server refused it, or is not there.
    """
    named = Pattern(patterns[0]).exact if len(patterns) == 1 else None
    with client.Rest(url) as rest:
        found = iter(rest.twins(patterns))
        first = next(found, None)
        if first is None:
            raise NotFound(_none(patterns, named))
        found = itertools.chain([first], found)
        if named is not None and not as_json:
            _, twin = first
            print(bytes(twin.value).decode())
        elif as_json or not out.is_terminal:
            _print_lines(found)
        else:
            state_table.print_state(found)


def _print_lines(found: "Iterable[tuple[str, RawTwin]]") -> None:
    for device_id, twin in found:
        known = {name: value for name, value in msgspec.structs.asdict(twin).items() if value is not UNSET}
        print(encode({"device_id": device_id, **known}).decode())


def _none(patterns: Sequence[str], named: str | None) -> str:
    if named is not None:
        return f"there is no device {named!r}"
    if patterns:
        return f"there is no device that {' or '.join(map(repr, patterns))} selects"
    return "there are no devices yet"
