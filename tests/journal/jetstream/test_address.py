"""The URL of a shared log."""

import pytest

from twincast.errors import JournalUnusable
from twincast.journal.jetstream.address import TOKEN, NatsAddress


def test_an_address_names_servers_a_log_and_a_copy() -> None:
    address = NatsAddress.parse("nats://n1:4222,n2,[::1]:5000/lab")
    assert address.servers == ("nats://n1:4222", "nats://n2:4222", "nats://[::1]:5000")
    assert (address.name, address.stream, address.copy) == ("lab", "twincast_lab", "twincast-lab.db")
    assert (address.log_subject, address.keys_subject) == ("twincast.lab.log", "twincast.lab.keys")
    assert address.replicas is None
    assert not address.is_tls


def test_an_address_takes_options() -> None:
    address = NatsAddress.parse("tls://n1/lab?copy=/var/lib/a.db&replicas=3&as=hall&nkey=s.nk&ca=ca.pem&cert=c&key=k")
    assert (address.copy, address.replicas, address.server_name) == ("/var/lib/a.db", 3, "hall")
    assert (address.nkey, address.ca, address.cert, address.key, address.is_tls) == ("s.nk", "ca.pem", "c", "k", True)


def test_a_token_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN, raising=False)
    assert NatsAddress.parse("nats://n/lab").token is None
    monkeypatch.setenv(TOKEN, "secret")
    assert NatsAddress.parse("nats://n/lab").token == "secret"


@pytest.mark.parametrize(
    "url",
    [
        "nats:",
        "nats://",
        "nats:///lab",
        "nats://n",
        "nats://n/",
        "nats://n/a/b",
        "nats://n/a b",
        "nats://n/" + "a" * 65,
        "nats://n,/lab",
        "nats://n:x/lab",
        "nats://n:123456/lab",
        "http://n/lab",
        "nats://n/lab#x",
        "nats://n/lab?copy=",
        "nats://n/lab?copy=a&copy=b",
        "nats://n/lab?what=1",
        "nats://n/lab?replicas=2",
        "nats://[n/lab",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(JournalUnusable):
        NatsAddress.parse(url)


def test_a_password_in_the_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(JournalUnusable) as refused:
        NatsAddress.parse("nats://user:geheim@n/lab")
    assert "geheim" not in refused.value.message
