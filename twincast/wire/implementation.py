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
"""What people are told that is in use."""
