"""Who may come in at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twincast.access.origin import OriginPolicy
from twincast.errors import Forbidden

LOCAL_HOSTS = [
    "localhost",
    "LOCALHOST:8000",
    "app.localhost:8000",
    "127.0.0.1",
    "127.0.0.1:8000",
    "127.255.0.9:1",
    "[::1]",
    "[::1]:8000",
]
FOREIGN_HOSTS = [
    "",
    "evil.example",
    "evil.example:8000",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "notlocalhost",
    "192.168.1.5:8000",
    "0.0.0.0:8000",
    "[::2]:8000",
    "[::1",
    "127.0.0.1@evil.example",
    "evil.example/localhost",
]


@pytest.mark.parametrize("host", LOCAL_HOSTS)
def test_local_names_are_ours(host: str) -> None:
    origin_policy = OriginPolicy()
    origin_policy.check(host, None)
    origin_policy.check(host, f"http://{host}")


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_a_name_that_someone_else_may_own_is_refused(host: str) -> None:
    with pytest.raises(Forbidden, match="does not answer to the Host"):
        OriginPolicy().check(host, None)


def test_a_request_without_a_host_is_refused() -> None:
    with pytest.raises(Forbidden, match=r"\(none\)"):
        OriginPolicy().check(None, None)


def test_an_allowed_host_is_ours_with_any_port_and_in_any_case() -> None:
    origin_policy = OriginPolicy(allow_hosts=["Twins.Example"])
    origin_policy.check("twins.example", None)
    origin_policy.check("TWINS.example:8000", "http://twins.EXAMPLE:8000")
    with pytest.raises(Forbidden):
        origin_policy.check("other.example", None)


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "http://evil.example",
        "http://localhost:3000",
        "http://localhost:8000.evil.example",
        "http://localhost:8000@evil.example",
        "file://",
        "ftp://localhost:8000",
        "http://127.0.0.1:8000",
    ],
)
def test_a_page_from_elsewhere_may_not_call(origin: str) -> None:
    with pytest.raises(Forbidden, match="may not call this server"):
        OriginPolicy().check("localhost:8000", origin)


def test_the_servers_own_pages_may_call_over_http_and_https() -> None:
    OriginPolicy().check("localhost:8000", "http://localhost:8000")
    OriginPolicy().check("LocalHost:8000", "HTTPS://localhost:8000")
    OriginPolicy().check("localhost:8000", "ws://localhost:8000")  # which phones' libraries say, and no page can


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:80", "http://localhost"),
        ("localhost", "http://localhost:80"),
        ("localhost:443", "https://localhost"),
        ("[0:0::1]:8000", "http://[::1]:8000"),
    ],
)
def test_an_origin_is_the_servers_own_however_its_port_and_address_are_written(host: str, origin: str) -> None:
    OriginPolicy().check(host, origin)
    with pytest.raises(Forbidden):
        OriginPolicy().check(host, f"{origin.rpartition(':')[0]}:9")


@pytest.mark.parametrize(
    "host", ["twin.example.org", "Twin.example.org.", "192.0.2.1:8000", "[2001:db8::1]:80", "localhost."]
)
def test_a_host_is_let_in_by_what_its_refusal_says(host: str) -> None:
    with pytest.raises(Forbidden) as refused:
        OriginPolicy().check(host, None)
    words = refused.value.message.split()
    OriginPolicy(allow_hosts=[words[words.index("--allow-host") + 1]]).check(host, None)


@pytest.mark.parametrize(
    "origin", ["http://A.example:80", "https://a.example:8443", "capacitor://localhost", "ftp://a"]
)
def test_an_origin_is_let_in_by_what_its_refusal_says(origin: str) -> None:
    with pytest.raises(Forbidden) as refused:
        OriginPolicy().check("localhost", origin)
    words = refused.value.message.split()
    OriginPolicy(allow_origins=[words[words.index("--allow-origin") + 1]]).check("localhost", origin)


def test_no_setting_is_named_where_none_helps() -> None:
    for origin in ("null", "file://", ""):
        with pytest.raises(Forbidden, match="Authorization: Bearer") as refused:
            OriginPolicy().check("localhost", origin)
        assert "--allow" not in refused.value.message
    with pytest.raises(Forbidden, match="a Host is a name") as refused:
        OriginPolicy().check("a b", None)
    assert "--allow" not in refused.value.message


def test_an_allowed_origin_may_call_with_or_without_a_slash_in_the_setting() -> None:
    for setting in ("https://Shop.example", "https://shop.example/"):
        OriginPolicy(allow_origins=[setting]).check("localhost", "https://SHOP.example")
    for other in ("http://shop.example", "https://shop.example.evil", "https://shop.example:444", "https://shop"):
        with pytest.raises(Forbidden):
            OriginPolicy(allow_origins=["https://shop.example"]).check("localhost", other)


def test_an_allowed_origin_opens_no_foreign_host() -> None:
    with pytest.raises(Forbidden):
        OriginPolicy(allow_origins=["http://evil.example"]).check("evil.example", "http://evil.example")


def test_a_pair_that_passed_does_not_let_its_halves_pass_with_others() -> None:
    origin_policy = OriginPolicy(allow_origins=["https://shop.example"])
    origin_policy.check("localhost", "https://shop.example")
    for host, origin in [("evil.example", "https://shop.example"), ("localhost", "https://evil.example")]:
        with pytest.raises(Forbidden):
            origin_policy.check(host, origin)


def test_a_pair_gets_the_same_answer_however_many_others_came_before() -> None:
    origin_policy = OriginPolicy()
    for port in range(1_500):
        origin_policy.check(f"localhost:{port}", f"http://localhost:{port}")
    origin_policy.check("localhost:1499", "http://localhost:1499")
    with pytest.raises(Forbidden):
        origin_policy.check("localhost:1499", "http://localhost:1")


@given(st.text(), st.none() | st.text())
def test_any_headers_are_let_in_or_forbidden(host: str, origin: str | None) -> None:
    origin_policy = OriginPolicy()
    try:
        origin_policy.check(host, origin)
    except Forbidden as refusal:
        assert len(refusal.message) < 1_000
        with pytest.raises(Forbidden):
            origin_policy.check(host, origin)
