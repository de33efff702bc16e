"""What it takes before others reach a server: on one's own network, and with a certificate of the server's own."""

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Never

import pytest

from tests.credentials import add_key, certificate
from twincast.access.addresses import parse
from twincast.app import create_app
from twincast.cluster.engine import Engine
from twincast.cluster.key_store import KeyStore
from twincast.cluster.local import held
from twincast.core.audit import Actor
from twincast.core.keys import Key
from twincast.errors import AddressUnusable, JournalUnusable, LoginUnusable
from twincast.journal.jetstream.access_log import AccessLog
from twincast.journal.jetstream.address import NatsAddress
from twincast.journal.local import LocalLog
from twincast.server.banner import Banner
from twincast.server.exposure import Exposure, exposed, refuse_exposure, with_certificate
from twincast.server.lan import Local, local
from twincast.settings import Settings

HERE = Local([parse("192.168.1.10"), parse("fd00::1")], ["192.168.1.10", "fd00::1", "127.0.0.1"], ["pi", "pi.local"])  # type: ignore[list-item]


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twincast.server.exposure.local", lambda host=None: HERE)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"self_signed": True, "tls_cert": "a.pem", "tls_key": "b.pem"}, "one of them"),
        ({"self_signed": True, "behind_tls_proxy": True}, "behind a TLS proxy it does not"),
        ({"self_signed": True, "journal": "memory:"}, "on disk"),
        ({"lan": True, "behind_tls_proxy": True}, "one of them"),
        ({"lan": True, "host": "127.0.0.1"}, "leave --host out"),
        ({"lan": True, "host": "localhost"}, "leave --host out"),
        ({"lan": True, "journal": "memory:"}, "a journal on disk"),
    ],
)
def test_what_contradicts_itself_is_refused_in_words(how: Any, words: str) -> None:
    with pytest.raises((AddressUnusable, LoginUnusable), match=words):
        refuse_exposure(Settings(**how))


def test_a_network_of_ones_own_takes_no_tls_and_no_key_before(tmp_path: Path) -> None:
    settings = Settings(lan=True, journal=f"sqlite:{tmp_path / 'journal.db'}", allow_host=("twin.example.org",))
    refuse_exposure(settings)
    found = exposed(settings)
    assert found.hosts == HERE.listened
    assert set(found.settings.allow_host) == {"twin.example.org", "pi", "pi.local", "192.168.1.10", "fd00::1"}
    assert found.url("192.168.1.10", 8000) == "http://192.168.1.10:8000"
    assert list(tmp_path.iterdir()) == []


def test_tokens_of_an_issuer_are_a_login_too() -> None:
    refuse_exposure(Settings(lan=True, journal="memory:", jwt_key="issuer.pem"))


def test_a_certificate_that_is_given_is_taken_on_a_network_of_ones_own(tmp_path: Path) -> None:
    cert, key = map(str, certificate(tmp_path))
    found = exposed(Settings(lan=True, tls_cert=cert, tls_key=key))
    assert with_certificate(found) is found
    assert found.url("192.168.1.10", 8000) == "https://192.168.1.10:8000"


def test_a_machine_without_a_private_address_is_on_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twincast.server.exposure.local", lambda host=None: Local([], ["127.0.0.1"], ["pi"]))
    with pytest.raises(AddressUnusable, match="it has none; is it on a network"):
        exposed(Settings(lan=True))


def test_a_system_that_does_not_say_where_it_is_is_asked_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Never:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr("psutil.net_if_addrs", refuse)
    with pytest.raises(AddressUnusable, match=r"not supported by protocol.*AF_NETLINK"):
        local()


def test_a_certificate_of_its_own_is_tls_for_an_address_that_everybody_reaches(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    settings = Settings(host="0.0.0.0", self_signed=True, journal=f"sqlite:{path}")
    with pytest.raises(AddressUnusable, match="a login") as refused:
        refuse_exposure(settings)
    assert "TLS:" not in str(refused.value)
    add_key(path, read=["*"])
    refuse_exposure(settings)
    made = with_certificate(exposed(settings))
    assert made.self_signed is not None
    assert (made.settings.tls_cert, made.hosts) == (made.self_signed.cert_path, ["0.0.0.0"])


def test_no_option_of_a_network_leaves_a_server_as_it_was() -> None:
    settings = Settings()
    refuse_exposure(settings)
    assert with_certificate(exposed(settings)) == Exposure(settings, ["127.0.0.1"])


# On a log that servers share.


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine(tmp_path_factory.mktemp("nats"), asks_token=False) as engine:
        yield engine


@pytest.mark.parametrize("how", [{"host": "0.0.0.0", "behind_tls_proxy": True}, {"lan": True}], ids=["all", "lan"])
def test_a_server_of_a_shared_log_without_keys_is_not_exposed(engine: Engine, how: Any) -> None:
    journal = f"{engine.url}/{len(how)}"
    with pytest.raises((AddressUnusable, LoginUnusable), match=f"keys add NAME.*{journal}"):
        refuse_exposure(Settings(journal=journal, **how))
    with AccessLog(NatsAddress.parse(journal), make=True) as log:
        log.add(Key("id1", "a", "d", {"read": ["*"]}, ""), Actor("local:me", "here"))
    refuse_exposure(Settings(journal=journal, **how))


@pytest.mark.parametrize("how", [{"host": "0.0.0.0", "behind_tls_proxy": True}, {"lan": True}], ids=["all", "lan"])
def test_a_server_that_others_reach_asks_for_a_login_before_nats_is_there(
    how: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(journal="nats://127.0.0.1:9/lab", **how)
    refuse_exposure(settings)
    assert "a login is asked for, with or without" in caplog.text
    assert create_app(settings).parts.admission.authenticator.is_required
    here_alone = Settings(journal="nats://127.0.0.1:9/lab")
    refuse_exposure(here_alone)
    assert not create_app(here_alone).parts.admission.authenticator.is_required


def test_a_url_that_is_none_is_refused_before_anything_is_opened() -> None:
    with pytest.raises(JournalUnusable, match="the name of a shared log"):
        refuse_exposure(Settings(journal="nats://127.0.0.1:9", host="0.0.0.0"))


def test_the_keys_of_workers_are_asked_for_where_they_will_be(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    settings = Settings(journal=f"sqlite:{path}", workers=2, host="0.0.0.0", behind_tls_proxy=True)
    with pytest.raises(AddressUnusable, match=f"keys add NAME .* --journal workers:{path}"):
        refuse_exposure(settings)
    with KeyStore(f"workers:{path}").open(make=True) as access:
        access.add(Key("id1", "a", "d", {"read": ["*"]}, ""), Actor("local:me", "here"))
    refuse_exposure(settings)
    assert not path.exists()


def test_the_first_key_of_workers_is_made_in_the_log_that_they_share(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "journal.db"
    exposure = exposed(Settings(journal=f"sqlite:{path}", workers=2, lan=True))
    with held(LocalLog.beside(str(path))):
        for _ in range(2):
            Banner(exposure, "192.168.1.10", 8000, workers=2).show_first_key()
        with KeyStore(f"workers:{path}").open() as access:
            (owner,) = access.keys()
    assert owner.name == "lan/owner"
    assert capsys.readouterr().out.count("The first key") == 1
    assert not path.exists()
