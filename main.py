"""The application for any ASGI server: `uvicorn main:app --reload --host 127.0.0.1 --port 8000`."""

from twincast.app import create_app
from twincast.settings import Settings

app = create_app(Settings())
