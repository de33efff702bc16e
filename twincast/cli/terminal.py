"""How commands speak: results on standard output, everything about the way there on standard error.

A line is written as it is. What is drawn goes through a console, which is made when something is: a command that
prints a line need not wait for it.
"""

import sys
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, TextIO

from twincast.later import later

if TYPE_CHECKING:
    from twincast import console
else:
    console = later("twincast.console")

_AS_IT_IS: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False}
"""Names, values and reasons come from outside: in them brackets are no markup, and `:fire:` is no emoji."""
_NOT_PRINTED = dict.fromkeys((7, 8, 11, 12, 13))
"""Bell, backspace, vertical tab, form feed and carriage return, which would move what stands around a name."""


class Output:
    """Standard output, by lines."""

    @property
    def _file(self) -> TextIO:
        return sys.stdout

    @cached_property
    def console(self) -> "console.Output":
        """What tables, bars and screens are drawn on."""
        return console.Output(**_AS_IT_IS)

    @property
    def is_terminal(self) -> bool:
        """Whether a person sees it; only a real terminal counts as one."""
        try:
            return self._file.isatty()
        except ValueError:  # it is closed
            return False

    def print(self, text: str) -> None:
        """Write a line, however long, at once.

        Raises:
            OSError: it cannot be written.
        """
        self._file.write(f"{text.translate(_NOT_PRINTED)}\n")
        self._file.flush()


class _Aside(Output):
    """Standard error: messages beside the result. That one cannot be written does not fail the command."""

    @property
    def _file(self) -> TextIO:
        return sys.stderr

    @cached_property
    def console(self) -> "console.Output":
        """See Output."""
        return console.Aside(stderr=True, **_AS_IT_IS)

    def print(self, text: str) -> None:
        """See Output."""
        with suppress(OSError):
            super().print(text)


out = Output()
err = _Aside()
