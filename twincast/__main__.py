"""Run the command line: `python -m twincast`."""

from twincast.cli.main import main

main()
