"""A server's address, as users write it."""

import pytest

from twincast.client import http_url

pytestmark = pytest.mark.usefixtures("impatient")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000"),
        ("ws://127.0.0.1:8000/ws", "http://127.0.0.1:8000"),
        ("wss://twin.example", "https://twin.example"),
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("localhost", "http://localhost"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("https://host/below/a/prefix/", "https://host/below/a/prefix"),
        ("wss://host/twin/ws", "https://host/twin"),
    ],
)
def test_an_address_may_be_written_in_several_ways(written: str, meant: str) -> None:
    assert http_url(written) == meant


@pytest.mark.parametrize("written", ["", "ftp://x", "http://", "///", "http://a..b", "http://x:port", "http://x:99999"])
def test_what_is_no_address_is_refused_in_words(written: str) -> None:
    with pytest.raises(ValueError, match="expected a server's address"):
        http_url(written)
