"""How the cost of one reading, one client, one device grows: `scripts/bench growth`."""
