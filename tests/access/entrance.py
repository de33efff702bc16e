"""An entrance for tests, with a clock of its own."""

from collections.abc import Sequence
from typing import Any

from tests.credentials import NOW_UTC
from twincast.access.admission import Admission
from twincast.access.authenticator import Authenticator
from twincast.access.keys import make_key
from twincast.access.limits import Bounds
from twincast.access.origin import OriginPolicy
from twincast.access.request import Caller, RequestFacts
from twincast.access.tickets import TicketUse
from twincast.access.tokens import Tokens
from twincast.core.keys import Key, Keyring
from twincast.core.rights import Principal, Rights
from twincast.errors import TwincastError

HERE = RequestFacts("127.0.0.1", "localhost")
PROXY = "10.0.0.9"


class Entrance:
    """An admission with a clock of its own, keys, and the errors by which leases were ended."""

    def __init__(
        self,
        *,
        proxies: Sequence[str] = (),
        anonymous_may_read: bool = False,
        tokens: Tokens | None = None,
        **bounds: Any,
    ) -> None:
        self.now_s = 0.0
        self.ended: list[TwincastError] = []
        self.keys: list[Key] = []
        authenticator = Authenticator(
            tokens=tokens, anonymous_may_read=anonymous_may_read, now_s=lambda: 1_000.0 + self.now_s
        )
        self.admission = Admission(
            OriginPolicy(allow_hosts=["twin.example.org"]),
            authenticator,
            Bounds(**bounds),
            trusted_proxies=proxies,
            clock_s=lambda: self.now_s,
        )
        self.admission.learn(Keyring(0, ()))

    def add_key(self, name: str = "a", **grants: list[str]) -> str:
        rights = Rights.of(grants or {"read": ["*"]})
        key, secret = make_key(name, rights, now_utc=NOW_UTC, rate_per_s=None, expires_s=None)
        self.keys.append(key)
        self.admission.learn(Keyring(len(self.keys), tuple(self.keys)))
        return secret

    def revoke_all(self) -> None:
        fields = [{name: getattr(key, name) for name in key.__struct_fields__} for key in self.keys]
        self.keys = [Key(**{**each, "revoked_at_utc": NOW_UTC}) for each in fields]
        self.admission.learn(Keyring(99, tuple(self.keys)))

    def admit(self, identity: str = "key:1", address: str = "192.0.2.1") -> None:
        self.admission.admit(Caller(Principal(identity), address), self.ended.append)


def facts_with(secret: str, peer: str = "127.0.0.1", **more: str) -> RequestFacts:
    return RequestFacts(peer, "localhost", authorization=f"Bearer {secret}", **more)


def use_of(ticket: str, *, resumes: bool = False) -> TicketUse:
    return TicketUse(ticket, f"ticket={ticket}", is_stream=resumes, resumes=resumes)
