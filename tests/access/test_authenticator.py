"""Which credentials are good."""

import pytest

from tests.credentials import AUDIENCE, ISSUER, NOW_UTC, Issuer
from twincast.access.authenticator import READER, Authority
from twincast.access.keys import make_key
from twincast.access.tokens import OneKey, Tokens
from twincast.core.keys import Key, Keyring
from twincast.core.rights import ANYONE, Rate, Rights
from twincast.errors import CredentialExpired, Unauthenticated


def made(name: str = "a", *, rate_per_s: float | None = None, expires_s: int | None = None) -> tuple[Key, str]:
    rights = Rights.of({"read": ["lab/*"]})
    return make_key(name, rights, now_utc=NOW_UTC, rate_per_s=rate_per_s, expires_s=expires_s)


def revoked(key: Key) -> Key:
    fields = {name: getattr(key, name) for name in key.__struct_fields__}
    return Key(**{**fields, "revoked_at_utc": NOW_UTC})


def test_without_a_key_everybody_is_let_in() -> None:
    authority = Authority()
    authority.learn(Keyring(1, ()))
    assert authority.anonymous is ANYONE
    assert authority.authenticate("whatever") is ANYONE


def test_from_the_first_key_on_a_credential_is_needed() -> None:
    authority = Authority()
    key, secret = made()
    authority.learn(Keyring(1, (key,)))
    assert authority.is_required
    assert authority.anonymous is None
    principal = authority.authenticate(secret)
    assert principal.id == f"key:{key.id}"
    assert principal.may("read", "lab/a")
    for wrong in ("", "whatever", "twc_", secret[:-1], secret + "x", secret.upper(), key.digest, key.id):
        with pytest.raises(Unauthenticated):
            authority.authenticate(wrong)


def test_a_server_does_not_open_again_when_its_last_key_goes() -> None:
    authority = Authority()
    key, secret = made()
    authority.learn(Keyring(1, (key,)))
    authority.learn(Keyring(2, (revoked(key),)))
    assert authority.anonymous is None
    with pytest.raises(CredentialExpired, match="revoked"):
        authority.authenticate(secret)
    authority.learn(Keyring(3, ()))
    assert authority.anonymous is None


def test_a_revoked_key_keeps_the_login_on_at_the_next_start() -> None:
    authority = Authority()
    authority.learn(Keyring(2, (revoked(made()[0]),)))
    assert authority.is_required


def test_a_key_ends_when_it_expires() -> None:
    now_s = [1_000.0]
    authority = Authority(now_s=lambda: now_s[0])
    key, secret = made(expires_s=1_010)
    authority.learn(Keyring(1, (key,)))
    principal = authority.authenticate(secret)
    assert authority.seconds_left(principal) == 10
    now_s[0] = 1_010.0
    with pytest.raises(CredentialExpired, match="expired"):
        authority.authenticate(secret)
    assert authority.is_required


def test_whoever_was_let_in_stays_only_as_long_as_he_would_be_let_in() -> None:
    authority = Authority()
    first, first_secret = made("a")
    second, second_secret = made("b")
    assert authority.still_holds(ANYONE)
    authority.learn(Keyring(1, (first, second)))
    assert not authority.still_holds(ANYONE)
    one, two = authority.authenticate(first_secret), authority.authenticate(second_secret)
    authority.learn(Keyring(2, (first, revoked(second))))
    assert authority.still_holds(one)
    assert not authority.still_holds(two)


def test_where_reading_is_open_nothing_else_is() -> None:
    authority = Authority(anonymous_may_read=True)
    authority.learn(Keyring(1, (made()[0],)))
    assert authority.anonymous is READER
    assert READER.may("read", "anything")
    assert not any(READER.may_at_all(action) for action in ("publish", "command", "admin"))
    assert not authority.still_holds(ANYONE)
    assert authority.still_holds(READER)


def test_a_key_has_its_own_rate_or_the_servers() -> None:
    authority = Authority(rate_per_s=1_000)
    (plain, plain_secret), (slow, slow_secret) = made("a"), made("b", rate_per_s=2)
    authority.learn(Keyring(1, (plain, slow)))
    assert authority.authenticate(plain_secret).rate == Rate(1_000, 5_000)
    assert authority.authenticate(slow_secret).rate == Rate(2, 10)


def test_keys_and_tokens_are_good_side_by_side() -> None:
    issuer = Issuer()
    tokens = Tokens(OneKey(issuer.pem()), issuer=ISSUER, audience=AUDIENCE, algorithms=["ES256"], rate=None)
    authority = Authority(tokens=tokens)
    assert authority.is_required
    key, secret = made()
    authority.learn(Keyring(1, (key,)))
    assert authority.authenticate(secret).id == f"key:{key.id}"
    text = issuer.token()
    assert authority.authenticate(text).id == "jwt:alice"
    assert authority.recognize(text) is not None


def test_a_token_that_was_verified_before_is_refused_once_it_has_expired() -> None:
    issuer, now_s = Issuer(), [0.0]
    tokens = Tokens(OneKey(issuer.pem()), issuer=ISSUER, audience=AUDIENCE, algorithms=["ES256"], rate=None)
    authority = Authority(tokens=tokens, now_s=lambda: now_s[0])
    text = issuer.token()
    principal = authority.authenticate(text)
    assert principal.expires_s is not None
    now_s[0] = principal.expires_s
    with pytest.raises(CredentialExpired):
        authority.authenticate(text)


def test_an_oversized_credential_is_not_looked_at() -> None:
    authority = Authority()
    authority.learn(Keyring(1, (made()[0],)))
    with pytest.raises(Unauthenticated, match="8192 bytes"):
        authority.authenticate("x" * 8_193)
