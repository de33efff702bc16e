"""Commands that last: how they end when they are interrupted, and what they say while there is no connection."""

import asyncio
import os
import signal
from collections.abc import Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from twincast.cli.terminal import err
from twincast.client import Link
from twincast.later import later

if TYPE_CHECKING:
    from rich import text
else:
    text = later("rich.text")


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
    if link.phase != "waiting":
        return
    words = f"{link.reason} (again in {link.wait_s:.1f} s)"
    if err.is_terminal:
        err.console.print(text.Text("waiting ", "yellow"), words, sep="", soft_wrap=True)
    else:
        err.print(f"waiting {words}")
