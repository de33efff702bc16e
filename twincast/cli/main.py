"""The command line: which commands there are, and how their errors end.

A command is a module of this package by its name. It is imported when it is called, so that `send` need not wait for
what `serve` is made of, and so that a device, which has no server, has all others.
"""

import logging
import os
import sys
from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Annotated, Any

import typer
import typer.core
import typer.main

from twincast import __version__, extras, stdio
from twincast.cli import conversion
from twincast.cli.terminal import err, out
from twincast.errors import SettingUnusable, TwincastError, masked

COMMANDS = {
    "serve": "Run the server.",
    "host": "Push this machine's CPU, memory, disk and network as a device.",
    "simulate": "Push the signals of a fleet that does not exist.",
    "watch": "Show every change: a live table, or one JSON line a change if the output is a pipe.",
    "get": "Print the newest state: a table, or JSON lines into a pipe; of one device that is named its value.",
    "history": "Show what a device reported: a curve of its numbers, or its newest values; lines into a pipe.",
    "send": "Send a reading, or one a line from standard input.",
    "control": "Send a command to everyone who watches.",
    "delete": "Delete a device: its newest state goes, and everyone who watches is told. A later reading makes it"
    " anew.",
    "status": "Say how the server is. Exit status 1 if it is not well.",
    "keys": "Make, list and revoke the API keys of a journal.",
    "pair": "Show a code, and a QR code, by which a device or a phone gets a key of its own: once, within 5 minutes.",
    "join": "Exchange a code for a key of this device's own.",
    "audit": "Show who commanded or deleted what, and who changed the keys.",
    "journal": "Back up, restore, check, describe, compact, move and fetch a journal.",
}
"""What each is for, in the words of its module, in the order of `--help`: to list them imports none."""
OF_THE_SERVER = ("serve", "keys", "pair", "journal")
"""The commands that need packages of the server."""
DONE, FAILED, WRONG_ARGUMENTS = 0, 1, 2
INTERRUPTED, OUTPUT_CLOSED = 130, 141  # 128 + SIGINT and SIGPIPE, as shells count


class _Commands(conversion.Group):
    """The commands by name."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = _Modules()

    def list_commands(self, ctx: Any) -> list[str]:
        """See TyperGroup."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """See TyperGroup."""
        return _Named(cmd_name) if cmd_name in COMMANDS else None


class _Named(typer.core.TyperCommand):
    """A command by its name and purpose, as a list of them has it. Its module is imported when it is called."""

    def __init__(self, name: str) -> None:
        aside = "" if name not in OF_THE_SERVER or extras.has_server() else " Comes with the server."
        super().__init__(name, help=f"{COMMANDS[name]}{aside}", add_help_option=False)

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """See Command; from here on it is the module's."""
        return _Modules()[str(self.name)].make_context(info_name, args, parent, **extra)


class _Modules(MutableMapping[str, Any]):
    """The commands of this package's modules, each imported when it is looked up."""

    def __getitem__(self, name: str) -> Any:
        if name not in COMMANDS:
            raise KeyError(name)
        try:
            module = import_module(f"twincast.cli.{name}")
        except ModuleNotFoundError as error:
            if not extras.is_foreign(error):
                raise
            return _not_installed(name, error)
        command: Any = typer.main.get_command(module.app)
        command.name = name
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)

    def __setitem__(self, name: str, command: Any) -> None:
        raise TypeError(f"{name} is a module of this package, or no command")

    __delitem__ = None  # type: ignore[assignment]


def _not_installed(name: str, error: ModuleNotFoundError) -> Any:
    """Return a command that raises, whatever it is asked for, that a package of the server is missing."""
    stub = typer.Typer(add_completion=False)
    takes_all = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}

    @stub.command(name, context_settings=takes_all, help=f"{COMMANDS[name]} Comes with the server.")
    def refuse(_: typer.Context) -> None:
        raise error

    return typer.main.get_command(stub)


app = typer.Typer(
    cls=_Commands,
    help="A live state backend: the newest state of every device, cast to everyone who watches.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.callback(invoke_without_command=True)
def _twincast(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        out.print(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line: an expected error is one line and exit status 1, a wrong argument one line and 2."""
    stdio.prepare()
    logging.getLogger("dotenv.main").addFilter(_in_our_words)
    try:
        status = _run()
        stdio.settle()
    except BrokenPipeError:
        status = OUTPUT_CLOSED  # the reader has had enough, such as `head`
        stdio.give_up(sys.stdout)
    except OSError as error:
        stdio.give_up(sys.stdout)
        status = _fail(f"{error.strerror or error}: {error.filename or 'standard output or input'}", FAILED)
    sys.exit(status)


def _run() -> int:
    try:
        _check_text()
        with extras.needed(" ".join(["twincast", *sys.argv[1:2]])):
            return int(app(standalone_mode=False) or DONE)
    except typer.Exit as end:
        return end.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except SettingUnusable as error:
        return _fail(error.message, WRONG_ARGUMENTS)
    except TwincastError as error:
        return _fail(error.message, FAILED)
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # typer turns that one into an exit
            raise end.__context__ from None
        raise
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        return _fail(error.format_message(), WRONG_ARGUMENTS)


def _check_text() -> None:
    """Check that arguments and settings are text: bytes that are none come in as lone surrogates (PEP 383).

    Raises:
        SettingUnusable: one is not.
    """
    settings = {name: value for name, value in os.environ.items() if name.startswith("TWINCAST_")}
    for name, value in (*((f"argument {number}", word) for number, word in enumerate(sys.argv)), *settings.items()):
        if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
            raise SettingUnusable(f"{name} is not UTF-8")


def _in_our_words(record: logging.LogRecord) -> bool:
    record.msg = "twincast: .env, line %s is not NAME=VALUE; it is ignored"
    return True


def _fail(text: str, status: int) -> int:
    err.print(f"twincast: {masked(text)}")
    return status
