"""The application for any ASGI server: `uvicorn main:app --reload --host 127.0.0.1 --port 8000`."""

import sys

from twincast.app import create_app
from twincast.errors import TwincastError
from twincast.settings import Settings

try:
    app = create_app(Settings())
except TwincastError as error:  # in one line, not under a traceback of the server's
    sys.exit(f"twincast: {error.message}")
