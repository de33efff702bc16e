"""A live state backend: REST and WebSocket over one durable state.

`from twincast import Twincast` has it inside an application of one's own; it is loaded when it is asked for, so that a
program which only connects loads no server.
"""

import importlib
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "Twincast":
        with importlib.import_module("twincast.extras").needed("twincast.Twincast"):
            return importlib.import_module("twincast.inside").Twincast
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
