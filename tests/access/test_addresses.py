"""Addresses are compared as what they are, not as how they are written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twincast.access.addresses import (
    Address,
    TrustedProxies,
    block_of,
    by_use,
    forwarded,
    in_url,
    is_exempt,
    is_local,
    is_private,
    network,
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
    for read in (parse, block_of, is_local, is_exempt):
        read(text)
    try:
        once = str(network(text))
    except ValueError as refusal:
        assert len(str(refusal)) < 500
    else:
        assert str(network(once)) == once


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
    with pytest.raises(ValueError) as refused:  # the words are looked at below
        network("https://me:hunter2@a.example.org")
    assert "hunter2" not in str(refused.value)


def test_only_a_trusted_proxy_says_whose_address_a_request_has() -> None:
    proxies = TrustedProxies(["10.0.0.0/8", "::1"])
    proxy, stranger = network("10.0.0.9").network_address, network(V6).network_address
    assert str(proxies.client_of(proxy, V4)) == V4
    assert proxies.client_of(proxy, None) == proxy
    assert proxies.client_of(proxy, "unknown") == proxy
    assert proxies.client_of(stranger, V4) == stranger
    assert TrustedProxies().client_of(proxy, V4) == proxy


def test_this_machine_and_proxies_are_not_counted_by_address_however_they_are_written() -> None:
    proxies = TrustedProxies(["10.0.0.0/8"])
    for text in ("127.0.0.1", "::1", "::ffff:127.0.0.1", "127.9.9.9", ""):
        assert is_exempt(text) and proxies.is_exempt(text), text
    for text in ("10.0.0.9", "::ffff:10.0.0.9"):
        assert not is_exempt(text) and proxies.is_exempt(text), text
    for text in (V4, V6, f"::ffff:{V4}", "0.0.0.0"):
        assert not is_exempt(text) and not proxies.is_exempt(text), text


PRIVATE = """
10.0.0.1 10.255.255.255 172.16.0.1 172.31.255.1 192.168.0.1 169.254.1.1 fc00::1 fdff::1 fe80::1 febf::1 fe80::1%eth0
::ffff:10.0.0.1
"""
OTHERS = """
8.8.8.8 9.255.255.255 11.0.0.0 172.15.255.255 172.32.0.0 192.167.255.255 192.169.0.0 169.253.255.255 169.255.0.0
100.64.0.1 192.0.2.1 127.0.0.1 0.0.0.0 255.255.255.255 224.0.0.251 :: ::1 2001:db8::1 2600::1 fbff::1 fe00::1 fec0::1
ff02::fb ::ffff:8.8.8.8 64:ff9b::a00:1 2002:a00:1::1
"""


def test_what_routers_keep_in_is_private_and_everything_else_is_not() -> None:
    found = {text: parse(text) for text in (PRIVATE + OTHERS).split()}
    assert [text for text, each in found.items() if each is not None and is_private(each)] == PRIVATE.split()


def test_the_address_that_people_would_type_comes_first() -> None:
    texts = ["fe80::1", "fd00::1", "169.254.3.4", "192.168.1.10", "10.8.0.1", "192.168.1.10"]
    found = [address for text in texts if (address := parse(text)) is not None]
    assert [str(each) for each in by_use(found)] == ["10.8.0.1", "192.168.1.10", "fd00::1", "169.254.3.4", "fe80::1"]
    assert [str(each) for each in by_use(found, parse("192.168.1.10"))][:2] == ["192.168.1.10", "10.8.0.1"]
    assert [in_url(each) for each in found[1:3]] == ["[fd00::1]", "169.254.3.4"]
