"""How commands speak: results on standard output, everything about the way there on standard error."""

import asyncio
import os
import signal
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any

from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

from twincast.client import Link
from twincast.stdio import Output


class _Aside(Output):
    """Messages beside the result. That one cannot be written does not fail the command."""

    def print(self, *objects: Any, **options: Any) -> None:
        """See Console."""
        with suppress(OSError):
            super().print(*objects, **options)


UNBOUNDED = 100_000
"""Columns; nothing that is printed has as many."""

# Names, values and reasons come from outside: in them brackets are no markup, and `:fire:` is no emoji.
out = Output(highlight=False, markup=False, emoji=False)
err = _Aside(stderr=True, highlight=False, markup=False, emoji=False)


def print_whole(table: Table, folding: Sequence[Column]) -> None:
    """Print a table without cutting anything: columns fold in a terminal; elsewhere a row is a line, however long."""
    for column in folding:
        column.overflow = "fold"
    if not out.is_terminal:
        wide = out.options.update(max_width=UNBOUNDED, width=UNBOUNDED)
        out.width = Measurement.get(out, wide, table).maximum
    out.print(table)


def until_interrupted(work: Coroutine[Any, Any, None]) -> None:
    """Run work that Ctrl-C is the normal end of.

    A signal that ends the process cancels the work first, so that it leaves the terminal as it was.
    """
    received: list[int] = []
    try:
        asyncio.run(_with_signals(work, received))
    except KeyboardInterrupt:
        return
    except asyncio.CancelledError:
        if not received:
            raise
    finally:
        if received:
            signal.signal(received[0], signal.SIG_DFL)
            os.kill(os.getpid(), received[0])


async def _with_signals(work: Coroutine[Any, Any, None], received: list[int]) -> None:
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None

    def end(number: int) -> None:
        received.append(number)
        task.cancel()

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # nohup has it ignored
            with suppress(NotImplementedError):  # on Windows
                loop.add_signal_handler(number, end, number)
    await work


def say_waiting(link: Link) -> None:
    """Print why nothing happens at the moment."""
    if link.phase == "waiting":
        err.print(Text("waiting ", "yellow"), f"{link.reason} (again in {link.wait_s:.1f} s)", sep="", soft_wrap=True)
