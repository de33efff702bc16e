"""How commands speak: results on standard output, everything about the way there on standard error."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from rich.text import Text

from twincast.client import Link
from twincast.stdio import Output


class _Aside(Output):
    """What is said beside the result. If nobody takes it, the result still counts."""

    def print(self, *objects: Any, **options: Any) -> None:
        """See Console."""
        with suppress(OSError):
            super().print(*objects, **options)


# Names, values and reasons are anybody's: in them brackets are no markup, and `:fire:` is no picture.
out = Output(highlight=False, markup=False, emoji=False)
err = _Aside(stderr=True, highlight=False, markup=False, emoji=False)


def until_interrupted(work: Coroutine[Any, Any, None]) -> None:
    """Run work that Ctrl-C is the normal end of."""
    try:
        asyncio.run(work)
    except KeyboardInterrupt:
        return


def say_waiting(link: Link) -> None:
    """Tell the person why nothing happens at the moment."""
    if link.phase == "waiting":
        err.print(Text("waiting ", "yellow"), f"{link.reason} (again in {link.wait_s:.1f} s)", sep="", soft_wrap=True)
