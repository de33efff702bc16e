"""A live state backend: REST and WebSocket over one durable state."""

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Return `FastEdge`, the WebSocket edge of `twincast serve`, for `uvicorn main:app --ws twincast:FastEdge`."""
    if name == "FastEdge":  # found when it is asked for: a program that only publishes needs no server
        from twincast.transports.picows import PicowsEdge  # noqa: PLC0415

        return PicowsEdge
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
