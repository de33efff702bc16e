"""A live state backend: REST and WebSocket over one durable state."""

__version__ = "0.1.0"
