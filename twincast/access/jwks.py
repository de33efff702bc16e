"""The public keys of a token issuer: its JWK Set (RFC 7517), fetched while the server runs, or one key from a file."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from jwt import PyJWK, PyJWKSet
from jwt.exceptions import PyJWTError

from twincast.access.addresses import is_local
from twincast.errors import KeysNotFetched, LoginUnusable, Unauthenticated

ASYMMETRIC = ("EdDSA", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512")
"""The algorithms that may be listed. With the others, whoever can check a token could also make one."""
REFRESH_MIN_S = 60.0
REFRESH_MAX_S = 600.0
"""A key set is fetched again after this long, so that a retired key does not stay good for ever."""
FETCH_TIMEOUT_S, FETCH_MAX_BYTES = 5.0, 1024 * 1024

Fetch = Callable[[], Awaitable[bytes]]
logger = logging.getLogger("twincast.auth")


class Jwks:
    """An issuer's public keys, fetched when an unknown one is asked for, every 10 minutes, and at most once a minute.

    | state | `find` of an unknown key | leads to |
    |---|---|---|
    | due: a fetch is wanted or under way | KeysNotFetched: try again in a second | known, failed |
    | known: the last fetch succeeded | Unauthenticated; a minute after that fetch, due | due |
    | failed: the last fetch failed; the old keys stay good | KeysNotFetched, with the time left until due | due |

    Only a fetch that succeeded shows that a key is not published. Until then a token is not refused for good, since
    its key may be good.
    """

    def __init__(self, fetch: Fetch, clock_s: Callable[[], float]) -> None:
        """Begin without keys; `run` fetches them. `clock_s` is a monotonic clock."""
        self._fetch = fetch
        self._clock_s = clock_s
        self._keys: dict[str | None, PyJWK] = {}
        self._tried_s = float("-inf")
        self._failed = False
        self._wanted = asyncio.Event()
        self._settled = asyncio.Event()
        self._settled.set()  # in every state but due
        self.version = 0
        """Changes with the keys."""

    def find(self, key_id: str | None) -> PyJWK:
        """Return the key that a token's header names; without a name, the only one.

        Raises:
            KeysNotFetched: it is not known yet: a fetch is due, under way, or failed within the last minute.
            Unauthenticated: the issuer does not publish it.
        """
        if key_id is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        if key_id in self._keys:
            return self._keys[key_id]
        left_s = self._tried_s + REFRESH_MIN_S - self._clock_s()
        if left_s <= 0 and self._settled.is_set():
            self._settled.clear()
            self._wanted.set()
        if not self._settled.is_set():
            raise KeysNotFetched("the issuer's keys are being fetched; try again in a second")
        if self._failed:
            raise KeysNotFetched(f"the issuer's keys could not be fetched; try again in {math.ceil(left_s)} s", left_s)
        raise Unauthenticated("the token is signed with a key that its issuer does not publish")

    async def fetched(self) -> None:
        """Wait until a fetch that is under way or due has ended, if one is."""
        await self._settled.wait()

    async def run(self) -> None:
        """Fetch the keys whenever that is due, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(REFRESH_MAX_S):
                    await self._wanted.wait()
            except TimeoutError:
                pass
            self._wanted.clear()
            try:
                await self.refresh()
            except LoginUnusable as error:
                logger.warning("the issuer's keys stay as they were: %s", error)

    async def refresh(self) -> None:
        """Fetch the keys now.

        Raises:
            LoginUnusable: no key set could be read; the old keys stay.
        """
        self._tried_s = self._clock_s()
        self._settled.clear()
        self._failed = True
        try:
            self._keys = _keys_in(await self._fetch())
            self.version += 1
            self._failed = False
        except (OSError, httpx.HTTPError, PyJWTError, ValueError, RecursionError) as error:
            raise LoginUnusable(f"no key set could be read: {_why_not_read(error)}") from None
        finally:
            self._settled.set()


class StaticKey:
    """A single public key from a PEM file, the same as long as the server runs."""

    version = 0

    def __init__(self, pem: str) -> None:
        """Use a key in PEM."""
        self._pem = pem

    @classmethod
    def of_file(cls, path: str) -> "StaticKey":
        """Read a key.

        Raises:
            LoginUnusable: the file has none.
        """
        try:
            pem = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise LoginUnusable(f"--jwt-key {path} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise LoginUnusable(f"--jwt-key {path} is no public key in PEM, which is text") from None
        if not any(_reads(algorithm, pem) for algorithm in ASYMMETRIC):
            raise LoginUnusable(f"--jwt-key {path} is no public key in PEM: `-----BEGIN PUBLIC KEY-----` begins one")
        return cls(pem)

    def find(self, _key_id: str | None) -> str:
        """See Jwks."""
        return self._pem


def fetch_from(where: str) -> Fetch:
    """Return a function that fetches a key set from a file or an address.

    Raises:
        LoginUnusable: anyone on the way could answer for that address.
    """
    parts = urlsplit(where)
    if parts.scheme not in {"http", "https"}:
        return lambda: asyncio.to_thread(_read, where)
    if parts.scheme == "http" and not is_local(parts.hostname):
        raise LoginUnusable(
            f"--jwt-jwks must be https, not http://{parts.hostname}: anyone on the way could hand out keys of their own"
        )
    return lambda: _get(where)


def _read(path: str) -> bytes:
    with Path(path).open("rb") as file:
        text = file.read(FETCH_MAX_BYTES + 1)
    if len(text) > FETCH_MAX_BYTES:
        raise _TooMuch
    return text


async def _get(url: str) -> bytes:
    parts: list[bytes] = []
    async with (
        asyncio.timeout(FETCH_TIMEOUT_S),
        httpx.AsyncClient(timeout=FETCH_TIMEOUT_S) as http,
        http.stream("GET", url) as response,
    ):
        response.raise_for_status()
        async for part in response.aiter_bytes():
            parts.append(part)
            if sum(map(len, parts)) > FETCH_MAX_BYTES:
                raise _TooMuch
    return b"".join(parts)


def _keys_in(text: bytes) -> dict[str | None, PyJWK]:
    try:
        return {key.key_id: key for key in PyJWKSet.from_json(text.decode()).keys}
    except (AttributeError, TypeError):  # the library looks into what it has not checked
        raise ValueError from None


def _why_not_read(error: Exception) -> str:
    """Say why no key set came. The library's own words show the whole address, whose query may be a secret."""
    match error:
        case httpx.HTTPStatusError():
            why = f"its server answers {error.response.status_code}"
        case httpx.TimeoutException() | TimeoutError():
            why = f"nothing came within {FETCH_TIMEOUT_S:g} s"
        case httpx.ConnectError():
            why = "no trusted server answers there: there is none, or its certificate is not good"
        case httpx.HTTPError():
            why = "the connection broke"
        case _TooMuch():
            why = f"it has more than {FETCH_MAX_BYTES} bytes"
        case OSError():
            why = error.strerror or "the file cannot be read"
        case _:
            why = "it is no key set with a key that can be used (RFC 7517)"
    return why


class _TooMuch(ValueError):
    """A key set is larger than FETCH_MAX_BYTES."""


def _reads(algorithm: str, pem: str) -> bool:
    try:
        jwt.get_algorithm_by_name(algorithm).prepare_key(pem)
    except (PyJWTError, ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True
