"""How the rooms that know no clock have something called later."""

from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """A call that is due at some later time."""

    def cancel(self) -> None:
        """Give the call up."""


CallLater = Callable[[float, Callable[[], None]], Timer]
"""Calls a function after so many seconds."""
