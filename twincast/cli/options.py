"""The options that several commands share, and what they mean: a server's address and credential, a journal."""

import os
from typing import Annotated, Any

import typer

from twincast.cli.conversion import Command, Group
from twincast.client import http_url
from twincast.environment import Environment

Journal = Annotated[
    str | None, typer.Option(help="The server's journal. \\[default: TWINCAST_JOURNAL or sqlite:twincast.db]")
]
Url = Annotated[
    str | None, typer.Option(help="The server's address. \\[default: TWINCAST_URL or http://127.0.0.1:8000]")
]
Fingerprint = Annotated[
    str | None,
    typer.Option(
        help="The trusted server's fingerprint, as --self-signed prints it. \\[default: TWINCAST_FINGERPRINT]"
    ),
]
Patterns = Annotated[list[str] | None, typer.Argument(help="Which devices, as in a shell: 'lab/*'. All if none.")]
Device = Annotated[str, typer.Argument(help="The device's name.")]
May = Annotated[list[str], typer.Option(help="publish, read, command, admin; several with commas.")]
Devices = Annotated[list[str] | None, typer.Option(help="A pattern, such as 'lab/*'. \\[default: *]")]
Rate = Annotated[float | None, typer.Option(help="Updates a second. \\[default: the server's, 1000]")]


class _Commands(typer.Typer):
    def command(self, *how: Any, **named: Any) -> Any:
        return super().command(*how, cls=Command, **named)


def commands(purpose: str | None = None) -> typer.Typer:
    """Return what a module adds its command to, or its commands under a common name that needs a purpose."""
    return _Commands(
        cls=Group, help=purpose, no_args_is_help=purpose is not None, add_completion=False, rich_markup_mode="rich"
    )


def server_url(url: str | None, fingerprint: str | None) -> str:
    """Return the server's address; put the credential and the fingerprint where the client looks for them."""
    environment = Environment.read()
    if environment.token is not None:
        os.environ["TWINCAST_TOKEN"] = environment.token  # it may have stood in .env
    pin = environment.fingerprint if fingerprint is None else fingerprint
    if pin is not None:
        os.environ["TWINCAST_FINGERPRINT"] = pin
    return address(environment.url if url is None else url)


def address(url: str) -> str:
    """Return a server's address as the client takes it.

    Raises:
        typer.BadParameter: it is none.
    """
    try:
        return http_url(url)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def journal_url(journal: str | None) -> str:
    """Return the journal that is meant."""
    return Environment.read().journal if journal is None else journal
