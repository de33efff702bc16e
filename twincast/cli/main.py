"""The command line: which commands there are, their options, and how their errors end."""

import asyncio
import inspect
import logging
import os
import sys
from collections.abc import Callable
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer
from rich.markup import escape

from twincast import __version__, extras, stdio
from twincast.cli import ask, get, host, join, send, simulate, trail, watch, words
from twincast.cli.terminal import err, out, until_interrupted
from twincast.environment import PREFIX, WITH_UNITS, Environment
from twincast.errors import SettingUnusable, TwincastError, masked

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from twincast.cli import journal as journals
    from twincast.cli import keys, pair
else:  # they open files as the server does, and a device has no server
    journals, keys = extras.later("twincast.cli.journal"), extras.later("twincast.cli.keys")
    pair = extras.later("twincast.cli.pair")

FIRST_SETTINGS = (
    "host",
    "port",
    "lan",
    "self_signed",
    "journal",
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
INTERRUPTED, OUTPUT_CLOSED = 130, 141  # 128 + SIGINT and SIGPIPE, as shells count

app = typer.Typer(
    help="A live state backend: the newest state of every device, cast to everyone who watches.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

keys_app = typer.Typer(help="Make, list and revoke the API keys of a journal.", no_args_is_help=True)
app.add_typer(keys_app, name="keys")
journal_app = typer.Typer(help="Back up, restore, check and describe a journal.", no_args_is_help=True)
app.add_typer(journal_app, name="journal")

Journal = Annotated[
    str | None, typer.Option(help="The server's journal. \\[default: TWINCAST_JOURNAL or sqlite:twincast.db]")
]
Url = Annotated[
    str | None, typer.Option(help="The server's address. \\[default: TWINCAST_URL or http://127.0.0.1:8000]")
]

Fingerprint = Annotated[
    str | None,
    typer.Option(help="Of the server that is trusted, as --self-signed prints it. \\[default: TWINCAST_FINGERPRINT]"),
]


def main() -> None:
    """Run the command line: an expected error is one line and exit status 1, a wrong argument one line and 2."""
    stdio.prepare()
    logging.getLogger("dotenv.main").addFilter(_in_our_words)
    try:
        status = _run()
        stdio.settle()
    except BrokenPipeError:
        status = OUTPUT_CLOSED  # whoever read has had enough, such as `head`
        stdio.give_up(sys.stdout)
    except OSError as error:
        stdio.give_up(sys.stdout)
        status = _say(f"{error.strerror or error}: {error.filename or 'standard output or input'}", 1)
    sys.exit(status)


def _run() -> int:
    try:
        _check_text()
        with extras.needed(" ".join(["twincast", *sys.argv[1:2]])):
            return int(app(standalone_mode=False) or 0)
    except typer.Exit as end:
        return end.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except SettingUnusable as error:
        return _say(error.message, 2)
    except TwincastError as error:
        return _say(error.message, 1)
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # which typer makes an exit of
            raise end.__context__ from None
        raise
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        return _say(error.format_message(), 2)


def _check_text() -> None:
    """See that arguments and settings are text: what is none comes in as halves of letters (PEP 383).

    Raises:
        SettingUnusable: one is not.
    """
    settings = {name: value for name, value in os.environ.items() if name.startswith("TWINCAST_")}
    for name, value in (*((f"argument {number}", word) for number, word in enumerate(sys.argv)), *settings.items()):
        if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
            raise SettingUnusable(f"{name} is not UTF-8")


@app.callback(invoke_without_command=True)
def _twincast(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        out.print(__version__)
        raise typer.Exit


def _with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each setting of the server, before its own: a setting is written once."""
    from twincast.settings import Settings  # noqa: PLC0415  # a device has no server

    own = [each for each in inspect.signature(command).parameters.values() if each.kind is not each.VAR_KEYWORD]
    others = [name for name in Settings.model_fields if name not in FIRST_SETTINGS]
    options = [_option_of(name, Settings.model_fields[name]) for name in (*FIRST_SETTINGS, *others)]
    command.__signature__ = inspect.Signature([*options, *own])  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in (*options, *own)}
    return command


def _option_of(name: str, field: "FieldInfo") -> inspect.Parameter:
    kind: Any = next((each for each in get_args(field.annotation) if each is not NoneType), field.annotation)
    if get_origin(field.annotation) is tuple:
        kind, default = list[str], ", ".join(field.default)
    else:
        default = "" if field.default is None else str(field.default)
    if get_origin(field.annotation) is Literal or name in WITH_UNITS:
        kind = str
    said = [" ".join((field.description or "").split()), f"[env: {PREFIX}{name.upper()}]"]
    if default and kind is not bool:
        said.append(f"[default: {default}]")
    option = typer.Option(
        f"--{name.replace('_', '-')}",
        help=escape(" ".join(said)),
        rich_help_panel=None if name in FIRST_SETTINGS else "Advanced",
    )
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


def serve(
    *,
    workers: Annotated[int, typer.Option(help="One, for now.", rich_help_panel="Advanced")] = 1,
    **settings: Any,
) -> None:
    """Run the server.

    Every option is also an environment variable, or a line of the file .env.
    """
    if workers != 1:
        raise typer.BadParameter(
            "one process owns the journal and gives every change its position; a second one would give out the same"
            " positions. --workers stays 1 until servers share one log"
        )
    from twincast.server.process import serve as run_server  # noqa: PLC0415  # the other commands start faster without them
    from twincast.settings import Settings  # noqa: PLC0415

    given = {name: value for name, value in settings.items() if value is not None}
    raise typer.Exit(run_server(Settings(**given)))


def _serve_without_settings(_: typer.Context) -> None:
    """Run the server, once it is installed."""
    from twincast.server import process as _server  # noqa: F401, PLC0415  # says what is missing


if extras.has_server():
    app.command()(_with_settings(serve))
else:
    takes_all: dict[str, Any] = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
    app.command("serve", context_settings=takes_all)(_serve_without_settings)


@app.command("simulate")
def _simulate(
    *,
    devices: Annotated[int, typer.Option(min=1, help="How many devices the fleet has.")] = 20,
    rate: Annotated[float, typer.Option(min=0.01, help="Readings a second, of all devices together.")] = 20.0,
    seconds: Annotated[float | None, typer.Option(min=0, help="How long; until Ctrl-C if not given.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed makes the same fleet.")] = 0,
    url: Url = None,
    fingerprint: Fingerprint = None,
) -> None:
    """Push the signals of a fleet that does not exist."""
    until_interrupted(simulate.simulate(_checked(url, fingerprint), devices, rate, seconds, seed))


@app.command("watch")
def _watch(
    patterns: Annotated[
        list[str] | None, typer.Argument(help="Which devices, as in a shell: 'lab/*'. All if none.")
    ] = None,
    url: Url = None,
    fingerprint: Fingerprint = None,
) -> None:
    """Show every change: a live table, or one JSON line a change if the output is a pipe."""
    until_interrupted(watch.watch(_checked(url, fingerprint), patterns or []))


@app.command("get")
def _get(
    patterns: Annotated[
        list[str] | None, typer.Argument(help="Which devices, as in a shell: 'lab/*'. All if none.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, as into a pipe.")] = False,
    url: Url = None,
    fingerprint: Fingerprint = None,
) -> None:
    """Print the newest state: a table, or JSON lines into a pipe; of one device that is named its value."""
    get.get(_checked(url, fingerprint), patterns or [], as_json=as_json)


@app.command("send", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def _send(
    context: typer.Context,
    device: Annotated[str, typer.Argument(help="The device's name.")],
    value: Annotated[
        str,
        typer.Argument(
            help="What is JSON is that: 21.5, true, null and, quoted for a shell, '{\"rpm\": 900}' or '\"21.5\"'."
            ' All else is text, but what begins with {, \\[ or " must be JSON.'
            " - reads one JSON value a line from standard input."
        ),
    ],
    url: Url = None,
    fingerprint: Fingerprint = None,
) -> None:
    """Send a reading, or one a line from standard input."""
    try:
        text = words.one_word([value, *context.args])
        if text == "-":
            asyncio.run(send.send_lines(_checked(url, fingerprint), device))
        else:
            send.send(_checked(url, fingerprint), device, text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


@app.command("host")
def _host(
    device: Annotated[str | None, typer.Option(help="Its name. \\[default: host/ and this machine's name]")] = None,
    interval: Annotated[float, typer.Option(min=0.05, help="Seconds between readings.")] = 1.0,
    count: Annotated[int | None, typer.Option(min=1, help="How many readings; until Ctrl-C if not given.")] = None,
    url: Url = None,
    fingerprint: Fingerprint = None,
) -> None:
    """Push this machine's CPU, memory, disk and network as a device."""
    until_interrupted(host.host(_checked(url, fingerprint), device, interval, count))


@app.command("control", context_settings={"ignore_unknown_options": True})
def _control(
    target: Annotated[str, typer.Argument(help="Whom the command is for.")],
    command: Annotated[str, typer.Argument(help="Its name.")],
    args: Annotated[list[str] | None, typer.Argument(help="A JSON object, or NAME=VALUE pairs.")] = None,
    url: Url = None,
    fingerprint: Fingerprint = None,
) -> None:
    """Send a command to everyone who watches."""
    try:
        ask.control(_checked(url, fingerprint), target, command, args or [])
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


@app.command("delete", context_settings={"ignore_unknown_options": True})
def _delete(
    device: Annotated[str, typer.Argument(help="The device's name.")],
    url: Url = None,
    fingerprint: Fingerprint = None,
) -> None:
    """Delete a device: its newest state goes, and everyone who watches is told. A later reading makes it anew."""
    ask.delete(_checked(url, fingerprint), device)


@app.command("status")
def _status(
    as_json: Annotated[bool, typer.Option("--json", help="As the server says it.")] = False,
    url: Url = None,
    fingerprint: Fingerprint = None,
) -> None:
    """Say how the server is. Exit status 1 if it is not well."""
    if not ask.status(_checked(url, fingerprint), as_json=as_json):
        raise typer.Exit(1)


@keys_app.command("add")
def _keys_add(
    name: Annotated[str, typer.Argument(help="What you call it, such as lab/gateway.")],
    *,
    may: Annotated[list[str], typer.Option(help="publish, read, command, admin; several with commas.")],
    devices: Annotated[list[str] | None, typer.Option(help="A pattern, such as 'lab/*'. \\[default: *]")] = None,
    expires: Annotated[str | None, typer.Option(help="In how long, such as 30d. \\[default: never]")] = None,
    rate: Annotated[float | None, typer.Option(help="Updates a second. \\[default: the server's, 1000]")] = None,
    journal: Journal = None,
) -> None:
    """Make a key and show it once. From the first one on, the server asks for a login; it need not be restarted."""
    keys.add(_found(journal), name, may=may, devices=devices or ["*"], expires=expires, rate_per_s=rate)


@keys_app.command("list")
def _keys_list(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    journal: Journal = None,
) -> None:
    """Show all keys: what they may do, until when. Their secrets are not stored, so nobody can show those."""
    keys.show(_found(journal), as_json=as_json)


@keys_app.command("revoke")
def _keys_revoke(
    key: Annotated[str, typer.Argument(help="Its name or id.")],
    journal: Journal = None,
) -> None:
    """End a key. Its open connections are closed within a second."""
    keys.revoke(_found(journal), key)


@keys_app.command("clear")
def _keys_clear(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    journal: Journal = None,
) -> None:
    """Forget all keys. After its next start the server asks for no login."""
    if not yes:
        typer.confirm("Forget all keys? After its next start the server is open to every program here.", abort=True)
    keys.clear(_found(journal))


@app.command("pair")
def _pair(
    name: Annotated[str, typer.Argument(help="What you call the key that it becomes, such as lab/fan.")],
    *,
    may: Annotated[list[str], typer.Option(help="publish, read, command, admin; several with commas.")],
    devices: Annotated[list[str] | None, typer.Option(help="A pattern, such as 'lab/*'. \\[default: *]")] = None,
    expires: Annotated[
        str | None, typer.Option(help="How long the key is good, such as 30d. \\[default: for ever]")
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Updates a second. \\[default: the server's, 1000]")] = None,
    url: Annotated[
        str | None, typer.Option(help="Where the device reaches the server. \\[default: where that says it is]")
    ] = None,
    fingerprint: Fingerprint = None,
    journal: Journal = None,
) -> None:
    """Show a code, and a QR code, by which a device or a phone gets a key of its own: once, within 5 minutes."""
    pair.pair(
        _found(journal),
        name,
        may=may,
        devices=devices or ["*"],
        expires=expires,
        rate_per_s=rate,
        url=None if url is None else _address(url),
        fingerprint=fingerprint,
    )


@app.command("join")
def _join(
    url: Annotated[str, typer.Argument(help="The server's address.")],
    code: Annotated[str, typer.Argument(help="What `twincast pair` shows on the server's machine.")],
    save: Annotated[
        str | None, typer.Option(help="A new file for the key, which you alone may read. \\[default: it is printed]")
    ] = None,
    fingerprint: Fingerprint = None,
) -> None:
    """Exchange a code for a key of this device's own."""
    join.join(_checked(url, fingerprint), code, save)


@journal_app.command("backup")
def _journal_backup(
    folder: Annotated[str, typer.Argument(help="A new or empty folder.")],
    journal: Journal = None,
) -> None:
    """Copy a journal as it is at this moment, checked. Its server may run meanwhile."""
    journals.back_up(_found(journal), folder, __version__)


@journal_app.command("restore")
def _journal_restore(
    folder: Annotated[str, typer.Argument(help="What `twincast journal backup` made.")],
    force: Annotated[bool, typer.Option("--force", help="Put a journal that is there aside, not away.")] = False,
    journal: Journal = None,
) -> None:
    """Put a backup in a journal's place, once all of it is copied and checked. No server may run on it."""
    journals.restore(_found(journal), folder, force=force)


@journal_app.command("check")
def _journal_check(
    folder: Annotated[str | None, typer.Argument(help="A backup, to be checked instead.")] = None,
    journal: Journal = None,
) -> None:
    """Read all of a journal and say what is wrong with it, with exit status 1. Its server may run meanwhile."""
    if not journals.check(_found(journal), folder):
        raise typer.Exit(1)


@journal_app.command("info")
def _journal_info(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    journal: Journal = None,
) -> None:
    """Say what a journal holds. Its server may run meanwhile."""
    journals.info(_found(journal), as_json=as_json)


@app.command("audit")
def _audit(
    limit: Annotated[int, typer.Option(min=1, help="How many records, the newest.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    journal: Journal = None,
    url: Annotated[
        str | None,
        typer.Option(help="A server to ask instead, with the right admin; the default where no server is installed."),
    ] = None,
    fingerprint: Fingerprint = None,
) -> None:
    """Show who commanded or deleted what, and who changed the keys."""
    if journal is not None and url is not None:
        raise typer.BadParameter("--journal and --url name two places; give one of them")
    if url is not None or (journal is None and not extras.has_server()):
        trail.show(ask.audit(_checked(url, fingerprint), limit), as_json=as_json)
    else:
        trail.show(keys.records(_found(journal), limit), as_json=as_json)


def _checked(url: str | None, fingerprint: str | None) -> str:
    settings = Environment.read()
    if settings.token is not None:
        os.environ["TWINCAST_TOKEN"] = settings.token  # where the client looks; it may have stood in .env
    pin = settings.fingerprint if fingerprint is None else fingerprint
    if pin is not None:
        os.environ["TWINCAST_FINGERPRINT"] = pin
    return _address(settings.url if url is None else url)


def _address(url: str) -> str:
    from twincast.client import http_url  # noqa: PLC0415

    try:
        return http_url(url)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _found(journal: str | None) -> str:
    return Environment.read().journal if journal is None else journal


def _in_our_words(record: logging.LogRecord) -> bool:
    record.msg = "twincast: .env, line %s is not NAME=VALUE; it is ignored"
    return True


def _say(text: str, status: int) -> int:
    err.print(f"twincast: {masked(text)}", markup=False, soft_wrap=True)
    return status
