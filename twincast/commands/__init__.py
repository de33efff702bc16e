"""What the command line does, one module a command; `twincast.cli` gives them their options."""
