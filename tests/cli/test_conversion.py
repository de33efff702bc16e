"""What is text needs no conversion; what Typer makes of anything else, and its words for mistakes, stay its own."""

from typing import Annotated, Any

import pytest
import typer
import typer.core
import typer.main

from twincast.cli.conversion import Command

CALLS = (
    ("a",),
    ("a", "b", "c"),
    ("a", "--name", "x", "--names", "y", "--names", "z"),
    ("a", "--number", "7", "--share", "0.5"),
    ("a", "--flag"),
    ("a", "--number", "seven"),
    ("a", "--number", "0"),
    ("a", "--share", "much"),
    (),
    ("a", "--gone"),
)


def outcome(kind: type[typer.core.TyperCommand], words: tuple[str, ...]) -> Any:
    """Return what a command is called with, or the words of its error."""
    app, called = typer.Typer(add_completion=False), []

    @app.command(cls=kind)
    def command(
        *,
        one: Annotated[str, typer.Argument()],
        more: Annotated[list[str] | None, typer.Argument()] = None,
        name: str | None = None,
        names: Annotated[list[str] | None, typer.Option()] = None,
        number: Annotated[int, typer.Option(min=1)] = 3,
        share: float | None = None,
        flag: bool = False,
    ) -> None:
        called.append((one, more, name, names, number, share, flag))

    try:
        typer.main.get_command(app)(list(words), standalone_mode=False)
    except Exception as error:
        return error.format_message()  # type: ignore[attr-defined]
    return called


@pytest.mark.parametrize("words", CALLS)
def test_a_command_gets_what_typer_would_give_it(words: tuple[str, ...]) -> None:
    assert outcome(Command, words) == outcome(typer.core.TyperCommand, words)
