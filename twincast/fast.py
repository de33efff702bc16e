"""The fast WebSocket edge by a short name: `uvicorn main:app --ws twincast.fast:Edge`."""

from twincast.transports.picows import PicowsEdge as Edge

__all__ = ["Edge"]
