"""Every optional parameter of the client, left out and given, against servers with and without a login and TLS."""

import asyncio
import inspect
import io
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.credentials import certificate, fingerprint_of
from twincast.cli import host, lines, send, simulate, watch
from twincast.client import Client, Link, Rest, connect
from twincast.client import sync as without_asyncio
from twincast.errors import ServerUnreachable, ValidationFailed
from twincast.testing import Server


class Place:
    """A server, and what it takes to reach it."""

    def __init__(self, server: Server, token: str | None, cert: Path | None) -> None:
        self.server, self.token, self.cert = server, token, cert
        self.url = server.url.replace("127.0.0.1", "localhost")

    @property
    def trusting(self) -> ssl.SSLContext | None:
        return None if self.cert is None else ssl.create_default_context(cafile=str(self.cert))


@pytest.fixture(params=["open", "login", "tls", "login and tls"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Each kind of server, whose certificate the system trusts and whose credential is in the environment."""
    monkeypatch.delenv("TWINCAST_TOKEN", raising=False)
    cert, how = None, dict[str, Any]()
    if "tls" in request.param:
        cert, key = certificate(tmp_path)
        how = {"tls_cert": str(cert), "tls_key": str(key)}
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    with Server(f"sqlite:{tmp_path / 'journal.db'}", **how) as server:
        token = None
        if "login" in request.param:
            token = server.add_key("me", publish=["*"], read=["*"], command=["*"], admin=["*"])
            monkeypatch.setenv("TWINCAST_TOKEN", token)
        yield Place(server, token, cert)


async def test_all_left_out(place: Place) -> None:
    async with connect(place.url) as client:
        seq = await client.publish("lamp", 1)
        await client.reached(seq)
        await client.control("lamp", "on")
        async with client.watch() as events:
            await client.publish("lamp", 2)
            assert (await anext(events.__aiter__())).value == 2
        assert client.state["lamp"].value == 2
        await client.delete("lamp")


async def test_all_given(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twincast.client.resumption.STARTING_S", 0.05)  # until then the cursor file has no position
    monkeypatch.delenv("TWINCAST_TOKEN", raising=False)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    links: list[Link] = []

    async def token() -> str:
        return place.token or ""

    async with connect(
        place.url,
        devices=["lab/*", "lamp"],
        timeout_s=20,
        buffer_max_bytes=1_000_000,
        on_link=links.append,
        token=token,
        tls=place.trusting,
        close_timeout_s=2,
        wait_max_s=5,
        since="e:0",
        cursor=tmp_path / "cursor",
        wait=True,
        spool=tmp_path / "outbox.db",
        spool_max_bytes=1_000_000,
    ) as client:
        await client.control("lamp", "set", {"to": 1})
        async with client.watch("lamp", mode="latest", kinds=["data_update"], max_hz=100, initial=True) as events:
            await client.publish("lamp", 1)
            assert (await anext(events.__aiter__())).value == 1
    assert [link.phase for link in links] == ["live"]


def test_without_asyncio_left_out_and_given(place: Place, tmp_path: Path) -> None:
    with without_asyncio.connect(place.url) as client:
        client.publish("lamp", 1)
        client.control("lamp", "on")
        assert next(client.watch(initial=True)).value == 1
    links: list[Link] = []
    given: dict[str, Any] = {"timeout_s": 20, "buffer_max_bytes": 1_000_000, "on_link": links.append}
    given |= {"token": place.token, "tls": place.trusting, "close_timeout_s": 2, "wait_max_s": 5}
    given |= {"wait": True, "spool": tmp_path / "outbox.db", "spool_max_bytes": 1_000_000}
    with without_asyncio.connect(place.url, "lamp", **given) as client:
        client.control("lamp", "set", {"to": 1})
        how: dict[str, Any] = {"mode": "every", "kinds": ["data_update"], "max_hz": None, "initial": True}
        assert [event.value for event in client.watch("lamp", **how, timeout_s=1.0)] == [1]
        client.delete("lamp", history=True)
        assert list(client.history("lamp", kinds=["data_update", "control"]).entries) == []
    assert links[0].phase == "live"


def test_single_requests_left_out_and_given(place: Place) -> None:
    with Rest(place.url) as rest:
        rest.publish("lamp", 1)
        rest.publish_all([("lamp", 2)])
        rest.control("lamp", "on")
        assert rest.data()["data"]["lamp"]["value"] == 2
        assert rest.audit()[0].action == "command"
    with Rest(place.url, token=place.token, tls=place.trusting) as rest:
        now = datetime.now(UTC)
        event = rest.publish("lamp", 3, key="k1", measured_at=now)
        rest.publish_all([("lamp", 4)], key="k2")
        rest.control("lamp", "set", {"to": 1}, key="k3")
        assert rest.publish("lamp", 3, key="k1", measured_at=now)["seq"] == event["seq"]
        assert rest.data(devices=["lamp"], min_seq=event["seq"])["data"]["lamp"]["value"] == 4
        assert rest.delete("lamp", key="k4")["type"] == "deleted"
        assert [record.action for record in rest.audit(limit=1)] == ["delete"]
    with Rest(place.url) as rest:
        rest.publish("a/../b", 1)
        assert rest.delete("a/../b", history=True)["type"] == "deleted"
        assert list(rest.history("a/../b").entries) == []


async def test_trusted_by_its_fingerprint(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    if place.cert is None:
        with pytest.raises(ValidationFailed, match="must begin with https"):
            Rest(place.url, fingerprint=f"sha256:{'0' * 64}")
        return
    pin = fingerprint_of(place.cert)
    async with connect(place.url, fingerprint=pin) as client:
        await client.publish("lamp", 1)
    with without_asyncio.connect(place.url, fingerprint=pin) as blocking:
        blocking.publish("lamp", 2)
    with Rest(place.url, fingerprint=pin) as rest:
        assert rest.data()["data"]["lamp"]["value"] == 2
    monkeypatch.setenv("TWINCAST_FINGERPRINT", pin)
    with Rest(place.url) as rest:
        assert rest.status()["ok"]


async def test_the_commands_that_stream(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("1\n2\n"))
    await lines.send_lines(place.url, "lamp")
    await asyncio.to_thread(send.send, place.url, "lamp", "3")
    await host.host(place.url, None, 0.01, 2)
    await simulate.simulate(place.url, 2, 50.0, 0.2, 0)
    assert await asyncio.to_thread(lambda: place.server.state["lamp"].value) == 3
    printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr("sys.stdout", printed)
    watching = asyncio.create_task(watch.watch(place.url, ["lamp"]))

    async def until_seen() -> None:
        with Rest(place.url) as rest:
            while b'"lamp"' not in printed.buffer.getvalue():
                await asyncio.to_thread(rest.publish, "lamp", "seen")

    await asyncio.wait_for(until_seen(), 30)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


def test_every_optional_parameter_is_named_above() -> None:
    text = Path(__file__).read_text()
    public: list[Any] = [
        connect,
        without_asyncio.connect,
        Rest.__init__,
        Rest.publish,
        Rest.data,
        Rest.control,
        Rest.publish_all,
        Rest.audit,
    ]
    public += [Client.watch, Client.control, Client.delete, without_asyncio.Client.watch, Rest.delete]
    public += [Client.publish, Client.submit, without_asyncio.Client.publish]
    for function in public:
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.default is not inspect.Parameter.empty:
                assert f"{name}=" in text or f'"{name}":' in text or name in {"devices", "args"}, name


SECRET = "tc_a-secret-that-nobody-may-see"


@pytest.mark.parametrize("around", ["{}\n", "{}\r\n", "  {}\t"])
async def test_a_credential_with_its_end_of_line_is_good(tmp_path: Path, around: str) -> None:
    async with Server(f"sqlite:{tmp_path / 'journal.db'}") as server:
        token = await asyncio.to_thread(lambda: server.add_key("me", publish=["*"], read=["*"]))
        async with connect(server.url, token=around.format(token)) as client:
            await client.publish("lamp", 1)
        async with connect(server.url, token=lambda: around.format(token)) as client:
            await client.publish("lamp", 2)
        with Rest(server.url, token=around.format(token)) as rest:
            assert await asyncio.to_thread(rest.data)


@pytest.mark.parametrize(
    "odd", [f"{SECRET}\n{SECRET}", f"{SECRET} {SECRET}", f"{SECRET}ü", f"{SECRET}\0", f"\ud800{SECRET}"]
)
async def test_what_cannot_be_a_credential_is_refused_and_never_shown(
    twincast_server: Server, odd: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("DEBUG")
    url = twincast_server.url
    said: list[str] = []
    for attempt in (lambda: Rest(url, token=odd), lambda: without_asyncio.connect(url, token=odd).__enter__()):
        with pytest.raises(ValidationFailed, match="credential") as refused:
            await asyncio.to_thread(attempt)
        said.append(str(refused.value))
    with pytest.raises(ValidationFailed, match="credential"):
        async with connect(url, token=odd):
            raise AssertionError("there is no such credential")
    with pytest.raises(ServerUnreachable, match="credential"):
        async with connect(url, timeout_s=0, token=lambda: odd, on_link=lambda link: said.append(link.reason)):
            raise AssertionError("there is no such credential")
    printed = capsys.readouterr()
    assert SECRET not in "".join((*said, caplog.text, printed.out, printed.err))


async def test_a_credential_is_in_no_log_however_much_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    async with Server(f"sqlite:{tmp_path / 'journal.db'}") as server:
        token = await asyncio.to_thread(lambda: server.add_key("me", publish=["*"], read=["*"]))
        async with connect(server.url, token=token) as client:
            await client.publish("lamp", 1)
        with Rest(server.url, token=token) as rest:
            await asyncio.to_thread(rest.data)
    assert token not in caplog.text


def test_an_address_with_a_password_in_it_is_refused_and_not_shown() -> None:
    for url in (f"http://me:{SECRET}@127.0.0.1:1", f"https://{SECRET}@host"):
        with pytest.raises(ValueError, match="may not have a user or a password") as refused:
            Rest(url)
        assert SECRET not in str(refused.value)
