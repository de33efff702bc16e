"""Which credentials are good."""

import pytest

from tests.credentials import NOW_UTC, Issuer, trusting
from twincast.access.authenticator import READER, Authenticator
from twincast.access.jwks import StaticKey
from twincast.access.keys import make_key
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
    authenticator = Authenticator()
    authenticator.learn(Keyring(1, ()))
    assert authenticator.anonymous is ANYONE
    assert authenticator.authenticate("whatever") is ANYONE


def test_from_the_first_key_on_a_credential_is_needed() -> None:
    authenticator = Authenticator()
    key, secret = made()
    authenticator.learn(Keyring(1, (key,)))
    assert authenticator.is_required
    assert authenticator.anonymous is None
    principal = authenticator.authenticate(secret)
    assert principal.id == f"key:{key.id}"
    assert principal.may("read", "lab/a")
    for wrong in ("", "whatever", "twc_", secret[:-1], secret + "x", secret.upper(), key.digest, key.id):
        with pytest.raises(Unauthenticated):
            authenticator.authenticate(wrong)


def test_a_server_does_not_open_again_when_its_last_key_goes() -> None:
    authenticator = Authenticator()
    key, secret = made()
    authenticator.learn(Keyring(1, (key,)))
    authenticator.learn(Keyring(2, (revoked(key),)))
    assert authenticator.anonymous is None
    with pytest.raises(CredentialExpired, match="revoked"):
        authenticator.authenticate(secret)
    authenticator.learn(Keyring(3, ()))
    assert authenticator.anonymous is None


def test_a_revoked_key_keeps_the_login_on_at_the_next_start() -> None:
    authenticator = Authenticator()
    authenticator.learn(Keyring(2, (revoked(made()[0]),)))
    assert authenticator.is_required


def test_a_key_ends_when_it_expires() -> None:
    now_s = [1_000.0]
    authenticator = Authenticator(now_s=lambda: now_s[0])
    key, secret = made(expires_s=1_010)
    authenticator.learn(Keyring(1, (key,)))
    principal = authenticator.authenticate(secret)
    assert principal.expires_s == 1_010
    assert authenticator.refusal(principal) is None
    now_s[0] = 1_010.0
    with pytest.raises(CredentialExpired, match="expired"):
        authenticator.authenticate(secret)
    assert authenticator.is_required


def test_whoever_was_let_in_stays_only_as_long_as_he_would_be_let_in() -> None:
    authenticator = Authenticator()
    first, first_secret = made("a")
    second, second_secret = made("b")
    assert authenticator.refusal(ANYONE) is None
    authenticator.learn(Keyring(1, (first, second)))
    assert isinstance(authenticator.refusal(ANYONE), Unauthenticated)
    one, two = authenticator.authenticate(first_secret), authenticator.authenticate(second_secret)
    authenticator.learn(Keyring(2, (first, revoked(second))))
    assert authenticator.refusal(one) is None
    assert isinstance(authenticator.refusal(two), CredentialExpired)


def test_where_reading_is_open_nothing_else_is() -> None:
    authenticator = Authenticator(anonymous_may_read=True)
    authenticator.learn(Keyring(1, (made()[0],)))
    assert authenticator.anonymous is READER
    assert READER.may("read", "anything")
    assert not any(READER.may_at_all(action) for action in ("publish", "command", "admin"))
    assert isinstance(authenticator.refusal(ANYONE), Unauthenticated)
    assert authenticator.refusal(READER) is None


def test_a_key_has_its_own_rate_or_the_servers() -> None:
    authenticator = Authenticator(rate_per_s=1_000)
    (plain, plain_secret), (slow, slow_secret) = made("a"), made("b", rate_per_s=2)
    authenticator.learn(Keyring(1, (plain, slow)))
    assert authenticator.authenticate(plain_secret).rate == Rate(1_000, 5_000)
    assert authenticator.authenticate(slow_secret).rate == Rate(2, 10)


def test_keys_and_tokens_are_good_side_by_side() -> None:
    issuer = Issuer()
    tokens = trusting(StaticKey(issuer.pem()))
    authenticator = Authenticator(tokens=tokens)
    assert authenticator.is_required
    key, secret = made()
    authenticator.learn(Keyring(1, (key,)))
    assert authenticator.authenticate(secret).id == f"key:{key.id}"
    text = issuer.token()
    assert authenticator.authenticate(text).id == "jwt:alice"
    assert authenticator.recognize(text) is not None


def test_a_token_that_was_verified_before_is_refused_once_it_has_expired() -> None:
    issuer, now_s = Issuer(), [0.0]
    tokens = trusting(StaticKey(issuer.pem()))
    authenticator = Authenticator(tokens=tokens, now_s=lambda: now_s[0])
    text = issuer.token()
    principal = authenticator.authenticate(text)
    assert principal.expires_s is not None
    now_s[0] = principal.expires_s
    with pytest.raises(CredentialExpired):
        authenticator.authenticate(text)


def test_an_oversized_credential_is_not_looked_at() -> None:
    authenticator = Authenticator()
    authenticator.learn(Keyring(1, (made()[0],)))
    with pytest.raises(Unauthenticated, match="8192 bytes"):
        authenticator.authenticate("x" * 8_193)
