"""The documents that describe every wire: OpenAPI, AsyncAPI, and the shapes of both."""
