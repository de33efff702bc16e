"""Whether Python alone is asked for, without the compiled module: to debug, and to compare."""

import os

VARIABLE = "TWINCAST_PURE"
IS_WANTED = os.environ.get(VARIABLE, "").lower() not in {"", "0", "false"}
"""Of the environment alone: it is read when the first module that has two implementations is imported."""
