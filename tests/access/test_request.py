"""What a request says of itself."""

import pytest

from twincast.access.addresses import TrustedProxies
from twincast.access.request import Caller, RequestFacts
from twincast.core.rights import ANYONE, Principal
from twincast.errors import BadMessage, Unauthenticated

PROXIES = TrustedProxies(["10.0.0.0/8", "127.0.0.2"])


def test_the_headers_that_decide_are_read_and_no_others() -> None:
    headers = [(b"accept", b"a"), (b"host", b"b"), (b"authorization", b"c"), (b"origin", b"d"), (b"x-real-ip", b"e")]
    assert RequestFacts.of("192.0.2.1", headers) == RequestFacts("192.0.2.1", "b", "d", "c")
    assert RequestFacts.of(None, []) == RequestFacts(None)
    assert RequestFacts.of(None, [(b"host", b"\xff")]).host == "\xff"


def test_a_header_that_decides_occurs_once_and_a_list_may_come_in_several_lines() -> None:
    for name in (b"host", b"origin", b"authorization"):
        for again in (b"a", b"b", b""):
            with pytest.raises(BadMessage, match="has two"):
                RequestFacts.of("127.0.0.1", [(name, b"a"), (b"accept", b"b"), (name, again)])
        with pytest.raises(BadMessage, match="has two"):
            RequestFacts.of("127.0.0.1", [(name, b""), (name, b"a")])
    assert RequestFacts.of(None, [(b"x-forwarded-for", b"a"), (b"x-forwarded-for", b"b")]).forwarded_for == "a,b"


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "address"),
    [
        ("192.0.2.1", None, "192.0.2.1"),
        ("::ffff:192.0.2.1", None, "192.0.2.1"),
        ("10.0.0.9", "192.0.2.7", "192.0.2.7"),
        ("10.0.0.9", "unknown", "10.0.0.9"),
        ("192.0.2.1", "127.0.0.1", "192.0.2.1"),
        (None, "192.0.2.7", "local"),
        ("", None, "local"),
        ("testclient", "192.0.2.7", "testclient"),
    ],
)
def test_a_request_has_the_address_of_its_peer_or_what_a_trusted_proxy_says(
    peer: str | None, forwarded_for: str | None, address: str
) -> None:
    assert RequestFacts(peer, forwarded_for=forwarded_for).address(PROXIES) == address


def test_a_program_on_this_machine_is_told_from_what_may_have_come_through_a_proxy() -> None:
    here = RequestFacts("127.0.0.1", "localhost:8000")
    assert here.is_from_this_machine(PROXIES)
    assert here._replace(peer="::1", host="[::1]:8000").is_from_this_machine(PROXIES)
    for other in (
        here._replace(peer="192.0.2.1"),
        here._replace(peer=None),
        here._replace(peer="127.0.0.2"),
        here._replace(forwarded_for="127.0.0.1"),
        here._replace(host=None),
        here._replace(host="twin.example.org"),
        here._replace(host="twin.localhost"),
    ):
        assert not other.is_from_this_machine(PROXIES), other


def test_a_credential_is_a_bearer_token() -> None:
    assert RequestFacts(None).credential() is None
    assert RequestFacts(None, authorization="bearer  twc_x ").credential() == "twc_x"
    for header in ("", "Bearer", "Bearer ", "Basic YTpi", "twc_x"):
        with pytest.raises(Unauthenticated, match="Authorization: Bearer"):
            RequestFacts(None, authorization=header).credential()


def test_the_account_of_a_caller_is_its_identity_or_the_block_of_its_address() -> None:
    assert Caller(Principal("key:1"), "192.0.2.1").account == "key:1"
    assert Caller(ANYONE, "192.0.2.1").account == "192.0.2.1"
    assert Caller(ANYONE, "2001:db8::1").account == Caller(ANYONE, "2001:db8::2").account
