"""Which functions in Python are called: what costs too many of them is found without a clock."""

import sys
from collections.abc import Callable
from types import FrameType


def calls_of(action: Callable[[], object]) -> list[str]:
    """Return the names of the functions that an action calls, itself left out, in order."""
    called: list[str] = []

    def note(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and frame.f_code is not getattr(action, "__code__", None):
            called.append(frame.f_code.co_name)

    sys.setprofile(note)
    try:
        action()
    finally:
        sys.setprofile(None)
    return called
