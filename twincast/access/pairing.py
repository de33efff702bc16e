"""Pairing codes: a device exchanges one for a key of its own. People type them, once, within minutes.

How hard a code is to guess: it has 8 of 32 letters, which is 40 bits or 1.1e12 possibilities. Wrong codes count as
failed logins (10 a minute from an address), and all addresses together may try WRONG_CODES_PER_MINUTE, with a burst of
as many. So while a code is good, 5 minutes, at most 60 + 5 * 60 = 360 codes are compared, at whatever rate they come.
Even with all CODES_MAX codes waiting, the chance that one is found is 360 * 100 / 1.1e12, one in 30 million; with one
code waiting, one in 3,000 million. Without that bound, 100 guesses a second would be 30,000, one in 37 million.
"""

import secrets
from hashlib import scrypt

from twincast.access.keys import check_terms
from twincast.core.keys import Pairing
from twincast.core.rights import Rights
from twincast.errors import ValidationFailed

LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's Base 32: without I, L and O, which look like others, and without U, with which words come about."""
_LOOK_ALIKES = str.maketrans("OILUoilu", "011V011V")
CODE_CHARS, GROUP_CHARS = 8, 4
CODE_LIFE_S = 300
CODES_MAX = 100
"""How many codes may wait at once."""
WRONG_CODES_PER_MINUTE = 60
"""From all addresses together. Once they are used up nobody can pair for a while; nothing else is affected."""

_SALT = b"twincast pairing code"
_SCRYPT_N, _SCRYPT_R = 1 << 13, 8
"""8 MiB and about 30 ms a digest: a thief of the file must not get through 2^40 of them within the 5 minutes."""


def make_code() -> str:
    """Return a new code, in groups, as people read it."""
    letters = "".join(secrets.choice(LETTERS) for _ in range(CODE_CHARS))
    return "-".join(letters[at : at + GROUP_CHARS] for at in range(0, CODE_CHARS, GROUP_CHARS))


def normal(text: str) -> str:
    """Return a code as it is compared: in capitals, without dashes and spaces, look-alikes replaced.

    Raises:
        ValidationFailed: it cannot be a code. The message does not show it.
    """
    letters = "".join(char for char in text if char not in "- \t\u2010\u2011\u2012\u2013\u2014")
    bare = letters.translate(_LOOK_ALIKES).upper() if letters.isascii() else ""
    if len(bare) != CODE_CHARS or not set(bare) <= set(LETTERS):
        raise ValidationFailed(f"a code is {CODE_CHARS} letters and digits, such as 7KQ4-9XTM; this is none")
    return bare


def digest_of_code(text: str) -> str:
    """Return the digest of a code, which is stored. Takes about 30 ms: not for an event loop. Raises as `normal`."""
    digest = scrypt(normal(text).encode(), salt=_SALT, n=_SCRYPT_N, r=_SCRYPT_R, p=1, dklen=32)
    return digest.hex()


def make_pairing(
    name: str, rights: Rights, *, now_s: int, rate_per_s: float | None, lives_s: int | None
) -> tuple[Pairing, str]:
    """Return a pairing to store, and its code, which is shown once.

    Args:
        name: the name of the key that is made when the code is used.
        rights: its rights.
        now_s: seconds since 1970.
        rate_per_s: its rate; None for the server's setting.
        lives_s: for how long the key is good, from when it is made; None for no end.

    Raises:
        ValidationFailed: see `check_terms`.
    """
    check_terms(name, rights, rate_per_s)
    code = make_code()
    pairing = Pairing(
        digest=digest_of_code(code),
        name=name,
        grants=rights.described(),
        rate_per_s=rate_per_s,
        lives_s=lives_s,
        until_s=now_s + CODE_LIFE_S,
    )
    return pairing, code
