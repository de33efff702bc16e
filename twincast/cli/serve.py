"""`twincast serve`: a flag for each setting of the server, and the table of them in docs/command-line.md.

Both are made from `Settings`, where a name, a default and a description stand once.
"""

import inspect
import json
import re
from collections.abc import Callable
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic import BeforeValidator
from pydantic.fields import FieldInfo
from rich.markup import escape

from twincast.cli.options import commands
from twincast.environment import PREFIX
from twincast.later import later
from twincast.settings import Settings

if TYPE_CHECKING:
    from twincast.journal import url as journal_urls
    from twincast.server import process, workers
else:
    journal_urls = later("twincast.journal.url")
    process, workers = later("twincast.server.process"), later("twincast.server.workers")

FIRST_SETTINGS = (
    "host",
    "port",
    "lan",
    "self_signed",
    "journal",
    "workers",
    "anonymous",
    "allow_host",
    "allow_origin",
    "tls_cert",
    "tls_key",
    "behind_tls_proxy",
    "jwt_jwks",
    "log_level",
    "log_format",
)
"""Of the server's settings, those that people need first, in the order of `serve --help`."""
NOT_SET = "not set"
LONG_NUMBER = 9_999
_LINK = re.compile(r"\[([^]]+)\]\([^)]+\)")

app = commands()


def _with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each setting of the server, before its own."""
    own = [each for each in inspect.signature(command).parameters.values() if each.kind is not each.VAR_KEYWORD]
    options = [_option_of(name, Settings.model_fields[name]) for name in _in_order()]
    command.__signature__ = inspect.Signature([*options, *own])  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in (*options, *own)}
    return command


def _in_order() -> list[str]:
    return [*FIRST_SETTINGS, *(name for name in Settings.model_fields if name not in FIRST_SETTINGS)]


def _option_of(name: str, field: FieldInfo) -> inspect.Parameter:
    described = _LINK.sub(r"\1", _described(field))
    option = typer.Option(
        f"--{name.replace('_', '-')}",
        help=escape(f"{described} [env: {PREFIX}{name.upper()}] [default: {_default(field)}]"),
        rich_help_panel=None if name in FIRST_SETTINGS else "Advanced",
    )
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[_type_of(field) | None, option]
    )


def _type_of(field: FieldInfo) -> Any:
    """Return as what an option of the command line is read, for `Settings` to check."""
    if get_origin(field.annotation) is tuple:
        return list[str]
    is_written_with_a_unit = any(isinstance(each, BeforeValidator) for each in field.metadata)
    if is_written_with_a_unit or get_origin(field.annotation) is Literal:
        return str
    return next((each for each in get_args(field.annotation) if each is not NoneType), field.annotation)


def _described(field: FieldInfo) -> str:
    return " ".join((field.description or "").split())


def _default(field: FieldInfo) -> str:
    if field.default in (None, "", ()):
        return NOT_SET
    if isinstance(field.default, tuple):
        return ", ".join(field.default)
    return json.dumps(field.default).strip('"')


def settings_table() -> str:
    """Return the table of all settings, in Markdown: for docs/command-line.md, which a test compares."""
    rows = (
        f"| `{PREFIX}{name.upper()}` | {_variable_default(field)} | {_described(field)} |"
        for name, field in ((name, Settings.model_fields[name]) for name in _in_order())
    )
    return "\n".join(["| variable | default | |", "|---|---|---|", *rows])


def _variable_default(field: FieldInfo) -> str:
    """Return a default as its variable has it, but for the commas of a long number; nothing if there is none."""
    match field.default:
        case None | "":
            return ""
        case bool() | str():
            return f"`{_default(field)}`"
        case tuple():
            return f"`{json.dumps(field.default)}`"
        case int() if field.default > LONG_NUMBER:
            return f"{field.default:,}"
        case _:
            return f"{field.default:g}"


@app.command()
@_with_settings
def command(**settings: Any) -> None:
    """Run the server.

    Every option is also an environment variable, or a line of the file .env.
    """
    wanted = Settings(**{name: value for name, value in settings.items() if value is not None})
    has_workers = wanted.workers > 1 or journal_urls.local_log_of(wanted.journal) is not None
    raise typer.Exit(workers.serve(wanted) if has_workers else process.serve(wanted))
