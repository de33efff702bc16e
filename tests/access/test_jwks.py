"""The public keys of a token issuer, as they are fetched, and as tokens meet them."""

import asyncio
import time
from pathlib import Path

import pytest

from tests.credentials import Issuer, jwks, trusting
from twincast.access.jwks import FETCH_MAX_BYTES, Jwks, StaticKey, fetch_from
from twincast.errors import KeysNotFetched, LoginUnusable, Unauthenticated


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


class Published:
    """A key set that somebody else publishes, and may change or take away."""

    def __init__(self, *issuers: Issuer) -> None:
        self.text: str | None = jwks(*issuers)
        self.fetches = 0
        self.answers = asyncio.Event()
        self.answers.set()
        self.now_s = 1_000.0
        self.keys = Jwks(self.fetch, lambda: self.now_s)

    async def fetch(self) -> bytes:
        self.fetches += 1
        await self.answers.wait()
        if self.text is None:
            raise OSError("nobody answers")
        return self.text.encode()


async def test_a_key_that_is_not_known_yet_is_fetched_at_most_once_a_minute(issuer: Issuer) -> None:
    published = Published(issuer)
    tokens = trusting(published.keys)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(published.keys.run())
        with pytest.raises(KeysNotFetched):
            tokens.verify(issuer.token())
        await published.keys.fetched()
        assert tokens.verify(issuer.token()).id == "jwt:alice"
        other = Issuer("second")
        published.text = jwks(issuer, other)
        for _ in range(3):
            with pytest.raises(Unauthenticated, match="does not publish"):
                tokens.verify(other.token())
        assert published.fetches == 1
        published.now_s += 61
        with pytest.raises(KeysNotFetched):
            tokens.verify(other.token())
        await published.keys.fetched()
        assert tokens.verify(other.token()).id == "jwt:alice"
        assert published.fetches == 2
        running.cancel()


async def test_while_a_fetch_is_under_way_nobody_is_refused_for_good(issuer: Issuer) -> None:
    published = Published(issuer)
    tokens = trusting(published.keys)
    published.answers.clear()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(published.keys.run())
        for _ in range(3):
            with pytest.raises(KeysNotFetched) as told:
                tokens.verify(issuer.token())
            assert told.value.retry_after_s == 1
            await asyncio.sleep(0)
        waiting = group.create_task(published.keys.fetched())
        await asyncio.sleep(0)
        assert not waiting.done()
        published.answers.set()
        await waiting
        assert tokens.verify(issuer.token()).id == "jwt:alice"
        assert published.fetches == 1
        running.cancel()


async def test_after_a_fetch_that_failed_whoever_comes_is_told_when_to_come_again(issuer: Issuer) -> None:
    published = Published(issuer)
    tokens = trusting(published.keys)
    published.text, text = None, published.text
    with pytest.raises(LoginUnusable):
        await published.keys.refresh()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(published.keys.run())
        published.now_s += 20
        with pytest.raises(KeysNotFetched) as told:
            tokens.verify(issuer.token())
        assert told.value.retry_after_s == pytest.approx(40)
        await published.keys.fetched()  # at once: none is due
        assert published.fetches == 1
        published.now_s += 40
        published.text = text
        with pytest.raises(KeysNotFetched):
            tokens.verify(issuer.token())
        await published.keys.fetched()
        assert tokens.verify(issuer.token()).id == "jwt:alice"
        running.cancel()


@pytest.mark.parametrize(
    "answer",
    [
        None,
        "",
        "{}",
        "[]",
        "null",
        '{"keys":[]}',
        '{"keys":[{"kty":"RSA","n":"AQ","e":"AQ","alg":["x"]}]}',
        "[" * 3_000,
        "<html>",
    ],
)
async def test_old_keys_stay_when_no_new_ones_come(issuer: Issuer, answer: str | None) -> None:
    published = Published(issuer)
    tokens = trusting(published.keys)
    await published.keys.refresh()
    published.text = answer
    with pytest.raises(LoginUnusable):
        await published.keys.refresh()
    assert tokens.verify(issuer.token()).id == "jwt:alice"


async def test_a_key_that_is_published_no_longer_is_good_no_longer(issuer: Issuer) -> None:
    published = Published(issuer)
    tokens = trusting(published.keys)
    await published.keys.refresh()
    text = issuer.token()
    tokens.verify(text)
    published.text = jwks(Issuer("second"))
    await published.keys.refresh()
    assert tokens.remembered(text) is None
    with pytest.raises(Unauthenticated):
        tokens.verify(text)


async def test_keys_come_from_a_file(issuer: Issuer, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(jwks(issuer))
    keys = Jwks(fetch_from(str(path)), time.monotonic)
    await keys.refresh()
    assert trusting(keys).verify(issuer.token()).id == "jwt:alice"


def test_a_single_key_is_a_public_one_in_pem(issuer: Issuer, tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_text(issuer.pem())
    assert trusting(StaticKey.of_file(str(path))).verify(issuer.token()).id == "jwt:alice"
    for content in (b"", b"twc_x", b"\xff", b"-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----"):
        path.write_bytes(content)
        with pytest.raises(LoginUnusable, match="no public key in PEM"):
            StaticKey.of_file(str(path))
    with pytest.raises(LoginUnusable, match="cannot be read"):
        StaticKey.of_file(str(tmp_path / "none.pem"))


def test_keys_do_not_come_over_plain_http_from_elsewhere() -> None:
    with pytest.raises(LoginUnusable, match="must be https"):
        fetch_from("http://login.example.org/keys.json")
    fetch_from("http://127.0.0.1:1/keys.json")
    fetch_from("https://login.example.org/keys.json")


@pytest.fixture
def oversized(issuer: Issuer) -> str:
    """Return a key set that is good but for its length."""
    return jwks(issuer).replace('{"keys":', '{"keys":' + " " * FETCH_MAX_BYTES)


async def test_an_oversized_key_file_is_not_taken(tmp_path: Path, oversized: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(oversized)
    with pytest.raises(LoginUnusable, match="more than"):
        await Jwks(fetch_from(str(path)), time.monotonic).refresh()


async def test_an_oversized_key_set_from_an_address_is_not_taken(oversized: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + oversized.encode())
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(LoginUnusable, match="more than"):
            await Jwks(fetch_from(f"http://127.0.0.1:{port}/keys.json"), time.monotonic).refresh()
