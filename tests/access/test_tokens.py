"""Tokens of an issuer elsewhere."""

import base64
import json
import time

import jwt
import pytest

from tests.credentials import AUDIENCE, ISSUER, Issuer, trusting
from twincast.access.jwks import ASYMMETRIC, StaticKey
from twincast.access.tokens import Tokens
from twincast.core.rights import Rate
from twincast.errors import CredentialExpired, LoginUnusable, Unauthenticated
from twincast.wire.messages import encode

RATE = Rate(10, 50)
FAR_AHEAD_S = 4_102_444_800
"""The year 2100."""


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def tokens(issuer: Issuer) -> Tokens:
    return trusting(StaticKey(issuer.pem()), rate=RATE)


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


def test_of_more_tokens_than_are_remembered_the_oldest_are_forgotten_and_not_all(
    issuer: Issuer, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twincast.access.tokens.REMEMBERED_MAX", 8)
    texts = [issuer.token(sub=f"device-{number}") for number in range(9)]
    for text in texts:
        tokens.verify(text)
    assert [tokens.remembered(text) is not None for text in texts] == [False] * 2 + [True] * 7
