"""Addresses, hosts and origins are compared as what they are, not as how they are written."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twincast.access.addresses import (
    Address,
    allowed_host,
    allowed_origin,
    block_of,
    forwarded,
    host_of,
    is_local,
    network,
    origin_of,
    parse,
)

V4, V6 = "203.0.113.5", "2001:db8::1"


@pytest.mark.parametrize(
    ("written", "address"),
    [
        (V4, V4),
        (f" {V4} ", V4),
        (f"{V4}:41234", V4),  # as Azure's gateway writes it
        (f"[{V4}]:80", V4),
        (f'"{V4}:80"', V4),
        (f"::ffff:{V4}", V4),  # as a socket of both kinds writes it
        ("::FFFF:cb00:7105", V4),
        (f"[::ffff:{V4}]:80", V4),
        (V6, V6),
        (f"[{V6}]", V6),
        (f"[{V6}]:443", V6),
        (f'"[{V6}]:443"', V6),  # as RFC 7239 writes it
        ("2001:DB8:0:0:0:0:0:1", V6),
        ("2001:db8:0:0:0:0:0:1:443", V6),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%25eth0]:80", "fe80::1"),
    ],
)
def test_an_address_is_the_same_however_it_is_written(written: str, address: str) -> None:
    assert str(parse(written)) == address
    assert block_of(written) == block_of(address)


@pytest.mark.parametrize(
    "text",
    [None, "", " ", "unknown", "_hidden", "_", "localhost", "example.org", ":80", "[::1", "::1]", "1.2.3", "1.2.3.4.5"],
)
def test_what_is_no_address_is_none(text: str | None) -> None:
    assert parse(text) is None


@given(st.text())
def test_any_text_is_read_or_is_nothing(text: str) -> None:
    for read in (parse, host_of, origin_of, block_of, is_local):
        read(text)
    for allow in (allowed_host, allowed_origin, network):
        try:
            once = str(allow(text))
        except ValueError as refusal:
            assert len(str(refusal)) < 500
        else:
            assert str(allow(once)) == once


def test_local_is_what_reaches_this_machine_alone() -> None:
    for local in ("localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9", "::1", "[::1]", "::ffff:127.0.0.1"):
        assert is_local(local), local
    for other in ("", None, "0.0.0.0", "::", "localhost.", "localhost.example", "10.0.0.1", "::ffff:10.0.0.1", "127.1"):
        assert not is_local(other), other


def of_ours(address: Address) -> bool:
    return address in network("10.0.0.0/8") or address in network("fd00::/8")


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (V4, V4),
        (f"198.51.100.1, {V4}", V4),  # what stands before it, the client said itself
        (f"{V4}:41234", V4),
        (f"{V4}:41234, 10.0.0.1:5,[fd00::1]:5", V4),  # three proxies, one behind the other
        (f"{V4},, 10.0.0.1 , ", V4),
        (f"unknown, {V4}, 10.0.0.1", V4),
        (f"{V4}, unknown", None),
        (f"{V4}, _hidden", None),
        (f"{V4}, unknown, 10.0.0.1", "10.0.0.1"),
        ("10.0.0.7", "10.0.0.7"),  # somebody behind the proxy's own wall is no proxy
        ("10.0.0.7, 10.0.0.1", "10.0.0.7"),
        (f"[{V6}]:443", V6),
        (f"::ffff:{V4}, ::ffff:10.0.0.1", V4),
        ("", None),
        (",", None),
        (f"for={V4}", None),  # the Forwarded header's way
    ],
)
def test_a_chain_of_proxies_ends_at_the_last_who_is_none(header: str, found: str | None) -> None:
    address = forwarded(header, of_ours)
    assert (None if address is None else str(address)) == found


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


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.0.0.9", "10.0.0.9/32"),
        ("[::1]", "::1/128"),
        ("fe80::1%eth0", "fe80::1/128"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),  # addresses are compared as IPv4, so networks are too
        ("::ffff:10.0.0.9", "10.0.0.9/32"),
        ("10.0.0.0/255.0.0.0", "10.0.0.0/8"),
    ],
)
def test_a_network_is_the_same_however_it_is_written(given: str, found: str) -> None:
    assert str(network(given)) == found


@pytest.mark.parametrize("given", ["10.0.0.1/8", "2001:db8::1/64", "::ffff:10.0.0.1/104", "10.0.0.9:80", "[::1]:80"])
def test_a_network_that_is_not_meant_is_refused_and_what_to_write_is_good(given: str) -> None:
    with pytest.raises(ValueError, match="write ") as refused:
        network(given)
    network(str(refused.value).rpartition("write ")[2].partition(" ")[0])


@pytest.mark.parametrize("given", ["", "proxy.example.org", "*", "10.0.0.0/33", "10.0.0.0/8/8", "unix:"])
def test_a_network_is_no_name(given: str) -> None:
    with pytest.raises(ValueError, match="a network is"):
        network(given)


def test_what_is_refused_shows_no_password() -> None:
    for allow in (allowed_host, allowed_origin, network):
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
