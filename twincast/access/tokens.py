"""JSON Web Tokens (RFC 7519) of an issuer elsewhere: verified here, never made here."""

import math
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from itertools import islice
from typing import Any

import jwt
from jwt.exceptions import (
    DecodeError,
    ExpiredSignatureError,
    ImmatureSignatureError,
    InvalidAlgorithmError,
    InvalidAudienceError,
    InvalidIssuerError,
    InvalidKeyError,
    InvalidSignatureError,
    MissingRequiredClaimError,
    PyJWTError,
)

from twincast.access.jwks import ASYMMETRIC, Jwks, StaticKey
from twincast.core.names import check_id
from twincast.core.rights import Principal, Rate, Rights
from twincast.errors import BadMessage, CredentialExpired, LoginUnusable, Unauthenticated, ValidationFailed

LEEWAY_S = 30
"""By how much the clocks of issuer and server may differ."""
REMEMBERED_MAX = 10_000
"""How many tokens are remembered once they were verified: a few megabytes."""
RIGHTS_CLAIM = "twincast"


class Tokens:
    """Verifies tokens: signed by the issuer, for this audience, not expired."""

    def __init__(
        self, keys: Jwks | StaticKey, *, issuer: str, audience: str, algorithms: Sequence[str], rate: Rate | None
    ) -> None:
        """Trust an issuer.

        Args:
            keys: its public keys.
            issuer: its name, the claim `iss`.
            audience: this service's name, the claim `aud`.
            algorithms: of the signatures that are accepted.
            rate: of updates, for each subject; None for no rate.

        Raises:
            LoginUnusable: issuer or audience are missing, or an algorithm is not asymmetric.
        """
        if not issuer or not audience:
            raise LoginUnusable("tokens need --jwt-issuer and --jwt-audience, or those for another service would do")
        if not algorithms or not set(algorithms) <= set(ASYMMETRIC):
            raise LoginUnusable(
                f"--jwt-algorithm must be of {', '.join(ASYMMETRIC)}; not {', '.join(algorithms) or 'none'}"
            )
        self.keys = keys
        self.jwks = keys if isinstance(keys, Jwks) else None
        self._issuer = issuer
        self._audience = audience
        self._algorithms = list(algorithms)
        self._rate = rate
        self._remembered: dict[bytes, Principal] = {}
        self._remembered_version = 0

    def remembered(self, text: str) -> Principal | None:
        """Return the principal of a token that was verified before, even if it has expired since; else None."""
        if self._remembered_version != self.keys.version:
            self._remembered.clear()
            self._remembered_version = self.keys.version
        return self._remembered.get(sha256(text.encode()).digest())

    def verify(self, text: str) -> Principal:
        """Return the principal of a token.

        Raises:
            CredentialExpired: it has expired.
            Unauthenticated: it is not good for another reason.
            KeysNotFetched: its signer is not known yet.
        """
        try:
            key_id = jwt.get_unverified_header(text).get("kid")
            key = self.keys.find(key_id if isinstance(key_id, str) else None)
            claims = jwt.decode(
                text,
                key,
                algorithms=self._algorithms,
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except ExpiredSignatureError:
            raise CredentialExpired("the token has expired; get a new one from its issuer") from None
        except (PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:  # of infinite times
            raise Unauthenticated(f"the token is not good here: {_why_not_good(error)}") from None
        principal = self._principal(claims)
        if len(self._remembered) >= REMEMBERED_MAX:
            for oldest in tuple(islice(self._remembered, REMEMBERED_MAX // 4)):
                del self._remembered[oldest]
        self._remembered[sha256(text.encode()).digest()] = principal
        return principal

    def _principal(self, claims: dict[str, Any]) -> Principal:
        grants = claims.get(RIGHTS_CLAIM, {})
        try:
            rights = Rights.of({action: _texts(patterns) for action, patterns in _object(grants).items()})
            expires_s = _time_s(claims["exp"]) + LEEWAY_S
            return Principal(f"jwt:{_subject(claims['sub'])}", rights, expires_s, self._rate)
        except BadMessage as error:
            raise Unauthenticated(f"the token's claims cannot be read: {error.message}") from None


_NOT_GOOD: tuple[tuple[type[Exception], str], ...] = (
    (InvalidSignatureError, "its signature is not of its issuer's key"),
    (InvalidIssuerError, "it is of another issuer than --jwt-issuer"),
    (InvalidAudienceError, "it is for another audience than --jwt-audience"),
    (ImmatureSignatureError, "it is not good yet, by this machine's clock"),
    (InvalidAlgorithmError, "it is signed by an algorithm that --jwt-algorithm does not list"),
    (InvalidKeyError, "it is signed by an algorithm that its issuer's key is not for"),
    (MissingRequiredClaimError, "it must have the claims exp, iss, aud and sub"),
    (DecodeError, "it is no JSON Web Token"),
    (UnicodeError, "it is no JSON Web Token"),
)
"""Why a token is refused, by the error that the library raises, whose own words may quote the token."""


def _why_not_good(error: Exception) -> str:
    return next((words for kind, words in _NOT_GOOD if isinstance(error, kind)), "a claim in it is not what it must be")


def _subject(value: Any) -> str:
    """Return a subject that may stand in logs."""
    check_id(value, "the subject")
    return str(value)


def _time_s(value: Any) -> float:
    """Return a NumericDate (RFC 7519, 2) as a number of seconds."""
    if type(value) in {int, float}:
        with suppress(OverflowError):
            if math.isfinite(seconds := float(value)):
                return seconds
    raise ValidationFailed("`exp` must be a time in seconds since 1970")


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValidationFailed(
            f"`{RIGHTS_CLAIM}` must be an object of patterns by right, such as {{'read': ['lab/*']}}"
        )
    return value


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ValidationFailed(f"each right in `{RIGHTS_CLAIM}` must be a list of patterns")
    return value
