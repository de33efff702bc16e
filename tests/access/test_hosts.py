"""Hosts and origins are compared as what they are, not as how they are written."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twincast.access.hosts import allowed_host, allowed_origin, host_of, is_localhost, origin_of

V6 = "2001:db8::1"


@given(st.text())
def test_any_text_is_read_or_is_nothing(text: str) -> None:
    for read in (host_of, origin_of, is_localhost):
        read(text)
    for allow in (allowed_host, allowed_origin):
        try:
            once = str(allow(text))
        except ValueError as refusal:
            assert len(str(refusal)) < 500
        else:
            assert str(allow(once)) == once


def test_localhost_is_that_name_and_those_below_it() -> None:
    for name in ("localhost", "app.localhost"):
        assert is_localhost(name)
    for name in ("notlocalhost", "localhost.example", "127.0.0.1", ""):
        assert not is_localhost(name)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("twin.example.org", "twin.example.org"),
        ("TWIN.Example.org", "twin.example.org"),
        ("twin.example.org.", "twin.example.org"),
        (" twin.example.org ", "twin.example.org"),
        ("twin_cast", "twin_cast"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("192.0.2.1", "192.0.2.1"),
        ("[2001:DB8:0::1]", V6),
        (V6, V6),
    ],
)
def test_an_allowed_host_is_what_requests_have(given: str, name: str) -> None:
    assert allowed_host(given) == name


@pytest.mark.parametrize(
    "given",
    [
        "twin.example.org:8443",
        "https://twin.example.org",
        "HTTPS://Twin.Example.org:8443/path?x",
        "//twin.example.org",
        "twin.example.org/",
        "bücher.example:80",
        f"[{V6}]:8443",
        f"http://[{V6}]/",
    ],
)
def test_an_allowed_host_with_more_is_refused_and_what_to_write_is_good(given: str) -> None:
    with pytest.raises(ValueError, match="write ") as refused:
        allowed_host(given)
    advice = str(refused.value).rpartition("write ")[2]
    assert allowed_host(advice) == advice


@pytest.mark.parametrize("given", ["", "*", "*.example.org", "a b", "a,b", '"a"', "a..b", "user@a", "ä" * 300])
def test_an_allowed_host_that_would_match_nothing_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match="a name is"):
        allowed_host(given)


@pytest.mark.parametrize(
    ("given", "origin"),
    [
        ("https://app.example.org", "https://app.example.org"),
        ("HTTPS://App.Example.org/", "https://app.example.org"),
        ("https://app.example.org:443", "https://app.example.org"),
        ("http://app.example.org:80/", "http://app.example.org"),
        ("http://app.example.org:443", "http://app.example.org:443"),
        ("https://bücher.example:8443", "https://xn--bcher-kva.example:8443"),
        ("http://[2001:DB8:0::1]:80", f"http://[{V6}]"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("app://-", "app://-"),
        ("ws://192.0.2.1:8000", "ws://192.0.2.1:8000"),
        ("chrome-extension://abcdef", "chrome-extension://abcdef"),
    ],
)
def test_an_allowed_origin_is_what_browsers_write(given: str, origin: str) -> None:
    assert allowed_origin(given) == origin
    assert str(origin_of(origin)) == origin


@pytest.mark.parametrize(
    "given",
    [
        "app.example.org",
        "app.example.org:8443",
        "https://app.example.org/app",
        "https://app.example.org?x",
        "localhost",
    ],
)
def test_an_allowed_origin_that_is_less_or_more_is_refused_and_what_to_write_is_good(given: str) -> None:
    with pytest.raises(ValueError, match="an origin is exact") as refused:
        allowed_origin(given)
    advice = str(refused.value).rpartition("write ")[2].partition(",")[0]
    assert allowed_origin(advice) == advice


@pytest.mark.parametrize(
    "given", ["null", "NULL", "file://", "file:///x", "", "*", "https://*.example.org", "https://"]
)
def test_an_allowed_origin_that_says_nothing_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match=r"says nothing|an origin is exact"):
        allowed_origin(given)


def test_what_is_refused_shows_no_password() -> None:
    for allow in (allowed_host, allowed_origin):
        with pytest.raises(ValueError) as refused:  # the words are looked at below
            allow("https://me:hunter2@a.example.org")
        assert "hunter2" not in str(refused.value)


def test_an_origin_with_more_than_a_place_is_none() -> None:
    for text in (
        "http://localhost@evil.example",
        "http://localhost/",
        "http://localhost?",
        "http:localhost",
        "http://",
    ):
        assert origin_of(text) is None
    for one, other in pairwise(["http://a", "http://a:81", "https://a", "http://a.", "ftp://a"]):
        assert origin_of(one) != origin_of(other)
