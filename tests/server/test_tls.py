"""TLS: everything over it, and a certificate that changes while the server runs."""

import asyncio
import socket
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.credentials import add_key, certificate
from tests.running import eventually
from twincast.client import Rest, connect
from twincast.errors import LoginUnusable
from twincast.server.tls import Certificate
from twincast.testing import Server

OLD = [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1]
ANY_CIPHER = "ALL:@SECLEVEL=0"


def presented(server: Server) -> bytes:
    """Return the certificate that a server shows at the moment."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", server.port)) as plain, context.wrap_socket(plain) as secure:
        return secure.getpeercert(binary_form=True) or b""


async def test_everything_goes_over_tls(tmp_path: Path, edge: str) -> None:
    cert, key = certificate(tmp_path)
    trusting = ssl.create_default_context(cafile=str(cert))
    path = tmp_path / "journal.db"
    token = add_key(path, publish=["*"], read=["*"])
    how: Any = {"tls_cert": str(cert), "tls_key": str(key)}
    async with Server(f"sqlite:{path}", edge=edge, **how) as server:
        assert server.url.startswith("https:")
        async with connect(server.url, token=token, tls=trusting) as client:
            seq = await client.publish("lab/lamp", {"big": "x" * 60_000})
            await client.reached(seq)
            assert client.state["lab/lamp"].value == {"big": "x" * 60_000}
        with Rest(server.url, token=token, tls=trusting) as rest:
            assert await asyncio.to_thread(rest.data)
        with pytest.raises(httpx.ConnectError, match="self-signed"):
            await asyncio.to_thread(httpx.get, server.url)


@pytest.mark.parametrize(
    ("host", "is_told"),
    [
        ("127.0.0.1", True),
        ("twin.example.org:8443", True),
        ("localhost", False),
        ("LOCALHOST.:8443", False),
        ("a.localhost", False),
    ],
)
def test_every_answer_over_tls_keeps_browsers_to_it_but_for_a_name_of_this_machine(
    tmp_path: Path, host: str, is_told: bool, edge: str
) -> None:
    cert, key = certificate(tmp_path)
    told = b"strict-transport-security: max-age=31536000\r\n" if is_told else b""
    handshake = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    with Server(edge=edge, tls_cert=str(cert), tls_key=str(key), allow_host=("twin.example.org",)) as server:
        for line, more in (
            ("GET /api/status", ""),
            ("GET /dashboard", ""),
            ("GET /nothing", ""),
            ("POST /api/data", ""),
            ("GET /api/status", "X-Long: " + "a" * 40_000 + "\r\n"),
            ("GET /ws", ""),
            ("GET /ws", handshake + "Sec-WebSocket-Version: 8\r\n"),
            *([("GET /ws", handshake + "Sec-WebSocket-Version: 13\r\n")] if is_told or edge == "picows" else []),
        ):
            answer = _answer(server, f"{line} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n")
            found = [each + b"\r\n" for each in answer.lower().split(b"\r\n") if each.startswith(b"strict")]
            assert found == ([told] if told else []), (line, more[:40])


def test_nothing_is_said_of_tls_where_it_does_not_end_here() -> None:
    with Server(behind_tls_proxy=True) as server:
        assert "strict-transport-security" not in httpx.get(f"{server.url}/api/status").headers


def test_the_promise_to_keep_to_tls_can_be_taken_back(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    with Server(tls_cert=str(cert), tls_key=str(key), hsts_max_age_s=0) as server:
        trusting = ssl.create_default_context(cafile=str(cert))
        assert httpx.get(server.url, verify=trusting).headers["strict-transport-security"] == "max-age=0"


def _answer(server: Server, request: str) -> bytes:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", server.port)) as plain, context.wrap_socket(plain) as secure:
        secure.sendall(request.encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += secure.recv(65_536)
        return answer


def test_a_changed_certificate_is_shown_without_a_restart(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    with Server("memory:", tls_cert=str(cert), tls_key=str(key)) as server:
        first = presented(server)
        certificate(tmp_path)
        eventually(lambda: presented(server) != first, "the new certificate is shown")


@pytest.mark.parametrize("broken", ["cert", "key", "mismatch"])
def test_a_server_shows_the_old_certificate_while_the_new_one_is_broken(
    tmp_path: Path, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    cert, key = certificate(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    foreign, _ = certificate(other)
    with Server("memory:", tls_cert=str(cert), tls_key=str(key)) as server:
        first = presented(server)
        (key if broken == "key" else cert).write_text(foreign.read_text() if broken == "mismatch" else "nonsense")
        eventually(lambda: "the certificate stays as it was" in caplog.text, "the change is looked at")
        assert presented(server) == first
        certificate(tmp_path)
        eventually(lambda: presented(server) != first, "the whole one is shown")


def test_a_certificate_that_cannot_be_used_leaves_the_old_one(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    loaded = Certificate(str(cert), str(key))
    assert not loaded.reload_if_changed()
    good = key.read_text()
    key.write_text("nonsense")
    assert not loaded.reload_if_changed()
    other = tmp_path / "other"
    other.mkdir()
    key.write_text(certificate(other)[1].read_text())  # a key of another certificate
    assert not loaded.reload_if_changed()
    key.write_text(good)
    assert loaded.reload_if_changed()


@pytest.mark.parametrize("which", ["cert", "key", "both", "nonsense"])
def test_a_certificate_that_is_not_whole_is_said_at_the_start(tmp_path: Path, which: str) -> None:
    cert, key = (str(path) for path in certificate(tmp_path))
    missing = str(tmp_path / "missing.pem")
    given: dict[str, tuple[str | None, str | None]] = {
        "cert": (None, key),
        "key": (cert, None),
        "both": (missing, missing),
        "nonsense": (key, key),
    }
    with pytest.raises(LoginUnusable):
        Certificate(*given[which])


def client_of(newest: ssl.TLSVersion) -> ssl.SSLContext:
    """Return the side of a client that speaks old versions up to one, with whatever cipher."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers(ANY_CIPHER)
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, newest
    return context


def spoken(server: ssl.SSLContext, newest: ssl.TLSVersion) -> str | None:
    """Shake hands in memory; return the version that both settle on."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_of(newest).wrap_bio(to_client, to_server)
    sides = [client, server.wrap_bio(to_server, to_client, server_side=True)]
    while sides:
        for side in tuple(sides):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
                sides.remove(side)
    return client.version()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("newest", OLD)
def test_old_versions_of_tls_are_not_spoken(tmp_path: Path, newest: ssl.TLSVersion) -> None:
    cert, key = (str(path) for path in certificate(tmp_path))
    context = Certificate(cert, key).context
    context.set_ciphers(ANY_CIPHER)  # else they would be refused for their ciphers too, on this machine
    with pytest.raises(ssl.SSLError, match=r"(?i)unsupported.protocol"):
        spoken(context, newest)
    context.minimum_version = ssl.TLSVersion.TLSv1  # and it is for our bound that they were not
    assert spoken(context, newest) == {"TLSv1": "TLSv1", "TLSv1_1": "TLSv1.1"}[newest.name]


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_a_server_shakes_hands_from_tls_1_2_on(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    with Server("memory:", tls_cert=str(cert), tls_key=str(key)) as server:

        def shake(newest: ssl.TLSVersion) -> str | None:
            plain = socket.create_connection(("127.0.0.1", server.port))
            with client_of(newest).wrap_socket(plain) as secure:
                return secure.version()

        assert [shake(newest) for newest in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)] == ["TLSv1.2", "TLSv1.3"]
        for newest in OLD:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                shake(newest)
