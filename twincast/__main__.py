"""Run the command line: `python -m twincast`."""

from twincast.cli import app

app()
