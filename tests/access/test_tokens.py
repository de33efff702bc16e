"""Tokens of an issuer elsewhere."""

import asyncio
import base64
import json
import time
from pathlib import Path

import jwt
import pytest

from tests.credentials import AUDIENCE, ISSUER, Issuer, jwks
from twincast.access.jwks import ASYMMETRIC, FETCH_MAX_BYTES, Jwks, StaticKey, fetch_from
from twincast.access.tokens import Tokens
from twincast.core.rights import Rate
from twincast.errors import CredentialExpired, KeysNotFetched, LoginUnusable, Unauthenticated
from twincast.wire.messages import encode

RATE = Rate(10, 50)
FAR_AHEAD_S = 4_102_444_800
"""The year 2100."""


def trusting(keys: Jwks | StaticKey, *algorithms: str) -> Tokens:
    return Tokens(keys, issuer=ISSUER, audience=AUDIENCE, algorithms=algorithms or ("ES256", "RS256"), rate=RATE)


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def tokens(issuer: Issuer) -> Tokens:
    return trusting(StaticKey(issuer.pem()))


def test_a_good_token_says_who_may_do_what_until_when(issuer: Issuer, tokens: Tokens) -> None:
    principal = tokens.verify(issuer.token("alice", twincast={"read": ["lab/*"], "publish": ["lab/a"]}))
    assert principal.id == "jwt:alice"
    assert principal.may("read", "lab/x")
    assert not principal.may("publish", "lab/x")
    assert principal.expires_s == pytest.approx(time.time() + 630, abs=5)  # with the leeway
    assert principal.rate == RATE


def test_a_token_without_rights_has_none(issuer: Issuer, tokens: Tokens) -> None:
    principal = tokens.verify(issuer.token())
    assert not any(principal.may_at_all(action) for action in ("publish", "read", "command", "admin"))


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://elsewhere.example.org"},
        {"aud": "another service"},
        {"aud": None},
        {"iss": None},
        {"exp": None},
        {"sub": None},
        {"sub": ""},
        {"sub": "a\nb"},
        {"sub": "x" * 129},
        {"nbf": FAR_AHEAD_S},
        {"twincast": "read"},
        {"twincast": {"read": "*"}},
        {"twincast": {"read": [1]}},
        {"twincast": {"fly": ["*"]}},
        {"twincast": {"read": [""]}},
        {"sub": "\ud800"},
        {"twincast": {"read": ["lab/\udfff"]}},
        {"twincast": {"read": ["\\\ud800"]}},
        {"exp": 10**400},
        {"exp": -(10**400)},
        {"exp": float("nan")},
        {"exp": float("inf")},
        {"exp": True},
        {"exp": str(FAR_AHEAD_S)},
        {"exp": [1]},
        {"nbf": float("inf")},
        {"iat": float("-inf")},
    ],
    ids=str,
)
def test_a_token_that_is_not_for_us_or_not_whole_is_refused(issuer: Issuer, tokens: Tokens, claims: object) -> None:
    assert isinstance(claims, dict)
    with pytest.raises(Unauthenticated) as refused:
        tokens.verify(issuer.token(**claims))
    assert encode(refused.value.message)  # it can be said


def test_an_expired_token_is_refused_after_the_leeway(issuer: Issuer, tokens: Tokens) -> None:
    tokens.verify(issuer.token(lives_s=-20))
    with pytest.raises(CredentialExpired):
        tokens.verify(issuer.token(lives_s=-40))


def test_another_ones_signature_is_refused(tokens: Tokens) -> None:
    with pytest.raises(Unauthenticated):
        tokens.verify(Issuer().token())


def test_a_token_that_signs_with_the_public_key_as_a_secret_is_refused(issuer: Issuer, tokens: Tokens) -> None:
    head = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=")
    claims = json.dumps({"sub": "a", "iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 60}).encode()
    body = head + b"." + base64.urlsafe_b64encode(claims).rstrip(b"=")
    signature = jwt.get_algorithm_by_name("HS256").sign(body, issuer.pem().encode())
    with pytest.raises(Unauthenticated):
        tokens.verify((body + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode())


def test_a_token_without_a_signature_is_refused(tokens: Tokens) -> None:
    claims = json.dumps({"sub": "a", "iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 60}).encode()
    head = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
    unsigned = f"{head}.{base64.urlsafe_b64encode(claims).decode().rstrip('=')}."
    with pytest.raises(Unauthenticated):
        tokens.verify(unsigned)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.b.c",
        "....",
        "e30.e30.",
        base64.urlsafe_b64encode(b"[" * 5_000).decode().rstrip("=") + ".e30.AA",
        base64.urlsafe_b64encode(b'{"alg":"ES256","kid":7}').decode() + ".e30.AA",
        "\ud800.\ud800.\ud800".encode("utf-16", "surrogatepass").decode("utf-16", "replace"),
        base64.urlsafe_b64encode(b'{"alg":"ES256","crit":["\\ud800"],"\\ud800":1}').decode().rstrip("=") + ".e30.AA",
    ],
    ids=["nothing", "letters", "dots", "empty", "deep", "odd key id", "surrogates", "a surrogate that is quoted"],
)
def test_what_is_no_token_at_all_is_refused(tokens: Tokens, text: str) -> None:
    with pytest.raises(Unauthenticated) as refused:
        tokens.verify(text)
    assert encode(refused.value.message)


@pytest.mark.parametrize("algorithms", [["HS256"], ["none"], ["ES256", "HS512"], []])
def test_only_asymmetric_algorithms_may_be_asked_for(issuer: Issuer, algorithms: list[str]) -> None:
    with pytest.raises(LoginUnusable, match="--jwt-algorithm"):
        Tokens(StaticKey(issuer.pem()), issuer=ISSUER, audience=AUDIENCE, algorithms=algorithms, rate=None)
    assert not any(name.startswith("HS") for name in ASYMMETRIC)


def test_issuer_and_audience_are_needed(issuer: Issuer) -> None:
    for who, whom in (("", AUDIENCE), (ISSUER, "")):
        with pytest.raises(LoginUnusable, match="--jwt-issuer and --jwt-audience"):
            Tokens(StaticKey(issuer.pem()), issuer=who, audience=whom, algorithms=["ES256"], rate=None)


def test_a_token_is_verified_once_as_long_as_the_keys_stay(issuer: Issuer, tokens: Tokens) -> None:
    text = issuer.token()
    assert tokens.remembered(text) is None
    principal = tokens.verify(text)
    assert tokens.remembered(text) is principal


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


def test_keys_do_not_come_over_plain_http_from_elsewhere() -> None:
    with pytest.raises(LoginUnusable, match="takes https"):
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
