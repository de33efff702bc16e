"""A console of rich, for what is drawn: tables, bars, a live screen, words in colour."""

import errno
import os
from contextlib import suppress
from typing import Any

from rich.console import Console


class Output(Console):
    """A console whose broken pipe raises, where rich would end the process.

    Only a real terminal counts as one: FORCE_COLOR and the like, which build systems set, do not make a terminal of a
    pipe or a log, from which programs read lines and where no secret belongs.
    """

    @property
    def is_terminal(self) -> bool:
        """See Console."""
        try:
            return self.file.isatty()
        except ValueError:  # it is closed
            return False

    def on_broken_pipe(self) -> None:
        """See Console."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


class Aside(Output):
    """A console for messages beside the result. That one cannot be written does not fail the command."""

    def print(self, *objects: Any, **options: Any) -> None:
        """See Console."""
        with suppress(OSError):
            super().print(*objects, **options)
