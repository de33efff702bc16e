"""REST: a code for a key, by which a device that has nothing yet becomes one that has a key of its own."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from twincast.access.keys import make_key
from twincast.access.pairing import CODE_LIFE_S, digest_of_code
from twincast.access.request import Caller, RequestFacts
from twincast.core.keys import Key, Pairing
from twincast.core.rights import NOBODY, Rights
from twincast.errors import (
    MalformedJson,
    TwincastError,
    Unauthenticated,
    Unavailable,
    ValidationFailed,
)
from twincast.transports.answer import JSON, Answer
from twincast.transports.asgi import Scope
from twincast.transports.documents import shapes
from twincast.transports.operation import Call, Operation
from twincast.transports.parts import Parts
from twincast.wire.messages import encode

logger = logging.getLogger("twincast.admission")

BODY_MAX_BYTES = 1_024


class Code(Struct, forbid_unknown_fields=True):
    """The body of a pairing."""

    code: Annotated[str, Meta(description="as `twincast pair` shows it; dashes, spaces and case do not matter")]


class Paired(Struct):
    """The key that a code was exchanged for. It is not shown again."""

    token: Annotated[str, Meta(description="the API key: what goes behind `Authorization: Bearer`")]
    identity: str
    name: str
    rights: Mapping[str, Sequence[str]]


CODE: dict[str, Any] = {"schema": shapes.reference(Code), "example": {"code": "7KQ4-9XTM"}}
"""The body, as the OpenAPI document shows it."""


def operations(parts: Parts) -> tuple[Operation, ...]:
    """Return the one call that needs no credential: the code is one."""
    pairing = _Pairing(parts)
    return (
        Operation(
            "POST",
            "/api/pair",
            pairing.pair,
            (Paired,),
            {JSON: CODE},
            (Code,),
            body_max_bytes=BODY_MAX_BYTES,
            needs_credential=False,
            identify=pairing.stranger,
            details=f"A code is good once, for {CODE_LIFE_S // 60:g} minutes.",
        ),
    )


class _Pairing:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._admission = parts.admission
        self._hashing = asyncio.Lock()

    def stranger(self, _scope: Scope, facts: RequestFacts) -> Caller:
        """Return the caller, who has no credential yet, and only an address.

        Raises:
            Forbidden: a Host or an Origin that is not ours.
        """
        return Caller(NOBODY, self._admission.check(facts))

    async def pair(self, call: Call) -> Answer:
        """Exchange a pairing code for an API key.

        `twincast pair NAME --may publish`, on the server's machine, shows a code. The key is shown this once, in the
        answer; if that is lost, revoke the key and take another code. Needs no credential. Wrong codes count as failed
        logins, for an address and for all together.
        """
        call.require_type(JSON)
        if call.query:
            raise ValidationFailed("the code stands in the body, for addresses are kept; this one has no parameters")
        code = _code_in(call.body)
        address = call.caller.address
        self._admission.pairing_attempts.begin(address)
        was_good = False
        try:
            key, secret = await self._made(code, address)
            was_good = True
        except TwincastError as error:
            was_good = not isinstance(error, Unauthenticated)  # a full disk is nobody's guess
            raise
        finally:
            self._admission.pairing_attempts.end(address, was_good=was_good)
            if not was_good:
                logger.info("a pairing from %s failed", address)
        await self._let_in()
        return Answer(encode(Paired(secret, f"key:{key.id}", key.name, key.grants)))

    async def _made(self, code: str, address: str) -> tuple[Key, str]:
        hub = self._parts.hub
        async with self._hashing:  # one at a time, for each takes 8 MiB
            digest = await asyncio.to_thread(digest_of_code, code)
        secrets: list[str] = []
        now_s = time.time()

        def make(pairing: Pairing) -> Key:
            expires_s = None if pairing.lives_s is None else int(now_s) + pairing.lives_s
            rights = Rights.of(pairing.grants)
            key, secret = make_key(
                pairing.name, rights, now_utc=hub.now_utc(), rate_per_s=pairing.rate_per_s, expires_s=expires_s
            )
            secrets.append(secret)
            return key

        key = await self._parts.access.pair(digest, now_s, make, address, life_s=CODE_LIFE_S)
        return key, secrets[0]

    async def _let_in(self) -> None:
        """Learn the new key before its owner has it: the next look at the keys may be a tenth of a second away."""
        with suppress(Unavailable):  # it is stored, and that look will find it
            await self._admission.refresh(self._parts.access.keyring)


def _code_in(body: bytes) -> str:
    try:
        return msgspec.json.decode(body, type=Code).code
    except msgspec.ValidationError:
        raise ValidationFailed('expected {"code": "XXXX-XXXX"}, and nothing else in it') from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MalformedJson('the body is not JSON; expected {"code": "XXXX-XXXX"}') from None
