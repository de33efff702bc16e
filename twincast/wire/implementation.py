"""Which implementation of plain readings and text frames is in use: the compiled one if it is installed, else Python.

It is chosen here, once, at the first import. The two do the same; `TWINCAST_PURE=1` leaves the compiled one out.
"""

from contextlib import suppress
from types import ModuleType

from twincast import pure

compiled: ModuleType | None = None
"""The compiled module, or None where Python does it all."""
if not pure.IS_WANTED:
    with suppress(ImportError):  # it is not built for this Python, or not at all
        from twincast.wire import compiled

NAME = "pure Python" if compiled is None else "compiled"
"""Which it is, in a word."""


def described() -> str:
    """Return how messages are read and written, for people who start a program."""
    if compiled is not None:
        return "read and written by the compiled module"
    if pure.IS_WANTED:
        return "read and written in Python alone, as TWINCAST_PURE asks"
    return "read and written in Python; the compiled module, which is optional, is faster"
