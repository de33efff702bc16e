"""What exists only under `twincast serve`: the process, TLS, bounded HTTP, the fast WebSocket edge."""
