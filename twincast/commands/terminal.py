"""How commands speak: results on standard output, everything about the way there on standard error."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from rich.console import Console

from twincast.client import Link

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def until_interrupted(work: Coroutine[Any, Any, None]) -> None:
    """Run work that Ctrl-C is the normal end of."""
    try:
        asyncio.run(work)
    except KeyboardInterrupt:
        return


def say_waiting(link: Link) -> None:
    """Tell the person why nothing happens at the moment."""
    if link.phase == "waiting":
        err.print(f"[yellow]waiting[/] {link.reason} (again in {link.wait_s:.1f} s)", soft_wrap=True)
