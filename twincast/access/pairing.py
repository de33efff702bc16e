"""Codes by which a device gets a key of its own: typed once, within minutes, on a keyboard or not.

How hard a code is to guess: it has 8 of 32 letters, 40 bits, 1.1e12 possibilities. Wrong ones cost as failed logins do
(10 a minute from an address), and all addresses together get WRONG_CODES_PER_MINUTE, as many again at once: while a
code is good, 5 minutes, no more than 60 + 5 * 60 = 360 are looked at, at whatever rate they come. So even with all
CODES_MAX codes waiting the chance is 360 * 100 / 1.1e12, one in 30 million; with one code, one in 3,000 million. At
100 guesses a second and no such bound it would be 30,000 guesses, still one in 37 million for one code.
"""

import secrets
from hashlib import scrypt

from twincast.access.keys import check_terms
from twincast.core.keys import Pairing
from twincast.core.rights import Rights
from twincast.errors import ValidationFailed

LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Without those that look like others: I, L, O; and without U, by which words come about (Crockford's Base 32)."""
_LOOK_ALIKES = str.maketrans("OILUoilu", "011V011V")
CODE_CHARS, GROUP_CHARS = 8, 4
CODE_LIFE_S = 300
CODES_MAX = 100
"""How many may wait at once."""
WRONG_CODES_PER_MINUTE = 60
"""From all addresses together. Whoever uses that up keeps others from pairing meanwhile, and from nothing else."""

_SALT = b"twincast pairing code"
_SCRYPT_N, _SCRYPT_R = 1 << 13, 8
"""8 MiB and some 30 ms a digest: who reads the file within the 5 minutes must not get through 2^40 of them."""


def make_code() -> str:
    """Return a new code, in groups as people read it."""
    letters = "".join(secrets.choice(LETTERS) for _ in range(CODE_CHARS))
    return "-".join(letters[at : at + GROUP_CHARS] for at in range(0, CODE_CHARS, GROUP_CHARS))


def normal(text: str) -> str:
    """Return a code as it is compared: in capitals, without dashes and spaces, look-alikes as what they stand for.

    Raises:
        ValidationFailed: it can be none. The words do not show it.
    """
    letters = "".join(char for char in text if char not in "- \t\u2010\u2011\u2012\u2013\u2014")
    bare = letters.translate(_LOOK_ALIKES).upper() if letters.isascii() else ""
    if len(bare) != CODE_CHARS or not set(bare) <= set(LETTERS):
        raise ValidationFailed(f"a code is {CODE_CHARS} letters and digits, such as 7KQ4-9XTM; this is none")
    return bare


def digest_of_code(text: str) -> str:
    """Return what is stored of a code; it takes some 30 ms, so not in an event loop's thread. Raises as `normal`."""
    digest = scrypt(normal(text).encode(), salt=_SALT, n=_SCRYPT_N, r=_SCRYPT_R, p=1, dklen=32)
    return digest.hex()


def make_pairing(
    name: str, rights: Rights, *, now_s: int, rate_per_s: float | None, lives_s: int | None
) -> tuple[Pairing, str]:
    """Return what a code is good for, and the code, which is shown once.

    Args:
        name: of the key that it becomes.
        rights: of that key.
        now_s: seconds since 1970.
        rate_per_s: of that key; None for the server's setting.
        lives_s: for how long that key is good from when it is made; None for no end.

    Raises:
        ValidationFailed: the name is not one, or there is no right.
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
