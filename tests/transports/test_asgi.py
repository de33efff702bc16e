"""What a request's scope says."""

from twincast.transports.asgi import header


def test_a_header_is_found_or_is_none() -> None:
    scope = {"headers": [(b"accept", b"text/html"), (b"host", b"here")]}
    assert (header(scope, b"host"), header(scope, b"origin")) == ("here", None)
