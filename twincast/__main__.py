"""Run the command line: `python -m twincast`."""

from twincast.cli import main

main()
