"""TLS: everything over it, and a certificate that changes while the server runs."""

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.access import add_key, certificate
from twincast.client import Rest, connect
from twincast.errors import LoginUnusable
from twincast.testing import Server, eventually
from twincast.tls import Certificate


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
        async with connect(server.url, token=token, tls=trusting) as hub:
            seq = await hub.publish("lab/lamp", {"big": "x" * 60_000})
            await hub.reached(seq)
            assert hub.state["lab/lamp"].value == {"big": "x" * 60_000}
        with Rest(server.url, token=token, tls=trusting) as rest:
            assert await asyncio.to_thread(rest.data)
        with pytest.raises(httpx.ConnectError, match="self-signed"):
            await asyncio.to_thread(httpx.get, server.url)


def test_a_changed_certificate_is_shown_without_a_restart(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    with Server("memory:", tls_cert=str(cert), tls_key=str(key)) as server:
        first = presented(server)
        certificate(tmp_path)
        eventually(lambda: presented(server) != first, "the new certificate is shown")


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


def test_old_versions_of_tls_are_not_spoken(tmp_path: Path) -> None:
    cert, key = (str(path) for path in certificate(tmp_path))
    assert Certificate(cert, key).context.minimum_version == ssl.TLSVersion.TLSv1_2
