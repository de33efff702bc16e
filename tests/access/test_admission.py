"""The entrance: who comes in, for how long, how many."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import pytest

from tests.credentials import AUDIENCE, ISSUER, NOW_UTC, Issuer
from twincast.access.admission import Admission
from twincast.access.authenticator import READER, Authenticator
from twincast.access.jwks import StaticKey
from twincast.access.keys import make_key
from twincast.access.limits import Bounds
from twincast.access.origin import OriginPolicy
from twincast.access.rates import DEBT_MAX_S, STEPS_A_UNIT
from twincast.access.request import Caller, RequestFacts
from twincast.access.revocation import KEYS_UNSEEN_MAX_S
from twincast.access.tickets import TicketUse
from twincast.access.tokens import Tokens
from twincast.core.keys import Key, Keyring
from twincast.core.rights import ANYONE, Principal, Rate, Rights
from twincast.errors import (
    BadMessage,
    CredentialExpired,
    Forbidden,
    JournalUnavailable,
    NotPermitted,
    RateLimited,
    TooManyConnections,
    TwincastError,
    Unauthenticated,
)
from twincast.testing import eventually_async

HERE = RequestFacts("127.0.0.1", "localhost")
PROXY = "10.0.0.9"


class Place:
    """An entrance with a clock of its own, and what it said to those who stayed."""

    def __init__(
        self,
        *,
        proxies: Sequence[str] = (),
        anonymous_may_read: bool = False,
        tokens: Tokens | None = None,
        **bounds: float,
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
            Bounds(**bounds),  # type: ignore[arg-type]
            trusted_proxies=proxies,
            clock_s=lambda: self.now_s,
        )

    def add(self, name: str = "a", **grants: list[str]) -> str:
        rights = Rights.of(grants or {"read": ["*"]})
        key, secret = make_key(name, rights, now_utc=NOW_UTC, rate_per_s=None, expires_s=None)
        self.keys.append(key)
        self.admission.learn(Keyring(len(self.keys), tuple(self.keys)))
        return secret

    def revoke_all(self) -> None:
        fields = [{name: getattr(key, name) for name in key.__struct_fields__} for key in self.keys]
        self.keys = [Key(**{**each, "revoked_at_utc": NOW_UTC}) for each in fields]
        self.admission.learn(Keyring(99, tuple(self.keys)))

    def stay(self, identity: str = "key:1", address: str = "192.0.2.1") -> None:
        self.admission.admit(Caller(Principal(identity), address), self.ended.append)


def facts(secret: str, peer: str = "127.0.0.1", **more: str) -> RequestFacts:
    return RequestFacts(peer, "localhost", authorization=f"Bearer {secret}", **more)


def once(ticket: str, *, resumes: bool = False) -> TicketUse:
    return TicketUse(ticket, f"ticket={ticket}", is_stream=resumes, resumes=resumes)


def test_a_good_credential_says_who_asks() -> None:
    place = Place()
    secret = place.add()
    caller = place.admission.identify(facts(secret))
    assert caller.principal.id == f"key:{place.keys[0].id}"
    assert caller.address == "127.0.0.1"
    assert place.admission.identify(HERE._replace(authorization=f"bearer  {secret} ")).principal == caller.principal


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic YTpi", "twc_x", "Bearer wrong"])
def test_without_a_good_credential_nobody_comes_in(header: str | None) -> None:
    place = Place()
    place.add()
    with pytest.raises(Unauthenticated):
        place.admission.identify(HERE._replace(authorization=header))


def test_a_server_without_a_login_answers_its_own_machine_alone() -> None:
    place = Place()
    assert place.admission.identify(HERE).principal is ANYONE
    assert place.admission.identify(HERE._replace(peer=None)).principal is ANYONE
    assert place.admission.identify(HERE._replace(peer="::ffff:127.0.0.1")).principal is ANYONE
    for peer in ("192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"):
        with pytest.raises(Forbidden, match="only programs on its own machine"):
            place.admission.identify(HERE._replace(peer=peer))
    secret = place.add()
    assert place.admission.identify(facts(secret, "192.0.2.1")).address == "192.0.2.1"


def test_a_request_that_says_twice_who_it_is_for_or_from_is_refused() -> None:
    for name in (b"host", b"origin", b"authorization"):
        with pytest.raises(BadMessage, match="has two"):
            RequestFacts.of("127.0.0.1", [(name, b"a"), (b"accept", b"b"), (name, b"a")])
    assert RequestFacts.of(None, [(b"x-forwarded-for", b"a"), (b"x-forwarded-for", b"b")]).forwarded_for == "a,b"


def test_only_a_trusted_proxy_says_where_a_client_is() -> None:
    place = Place(proxies=[f"{PROXY}/32"])
    secret = place.add()

    def seen(peer: str, forwarded_for: str) -> str:
        return place.admission.identify(facts(secret, peer, forwarded_for=forwarded_for)).address

    assert seen(PROXY, "192.0.2.7") == "192.0.2.7"
    assert seen(PROXY, "198.51.100.1, 192.0.2.7") == "192.0.2.7"  # what stands before it, the client said itself
    assert seen(PROXY, f"192.0.2.7, {PROXY}") == "192.0.2.7"
    assert seen(PROXY, "nonsense") == PROXY
    assert seen(PROXY, "") == PROXY
    assert seen("192.0.2.1", "127.0.0.1") == "192.0.2.1"


def test_after_ten_failed_logins_in_a_minute_an_address_waits() -> None:
    place = Place()
    secret = place.add()
    for _ in range(10):
        with pytest.raises(Unauthenticated):
            place.admission.identify(facts("wrong", "192.0.2.1"))
    with pytest.raises(RateLimited) as limited:
        place.admission.identify(facts("wrong", "192.0.2.1"))
    assert limited.value.retry_after_s == pytest.approx(6)
    with pytest.raises(Unauthenticated):
        place.admission.identify(facts("wrong", "192.0.2.2"))
    # One who has a key is not locked out by a neighbour behind the same address.
    assert place.admission.identify(facts(secret, "192.0.2.1")).principal.may("read", "a")
    place.now_s += 6
    with pytest.raises(Unauthenticated):
        place.admission.identify(facts("wrong", "192.0.2.1"))


def test_an_address_of_ipv6_counts_by_what_a_customer_is_given() -> None:
    place = Place()
    place.add()
    for number in range(10):
        with pytest.raises(Unauthenticated):
            place.admission.identify(facts("wrong", f"2001:db8::{number:x}"))
    with pytest.raises(RateLimited):
        place.admission.identify(facts("wrong", "2001:db8::ffff"))
    with pytest.raises(Unauthenticated):
        place.admission.identify(facts("wrong", "2001:db8:0:1::1"))


async def test_an_identity_has_a_bounded_number_of_connections() -> None:
    place = Place(identity_connections_max=2)
    place.stay("key:1")
    place.stay("key:1")
    with pytest.raises(TooManyConnections, match="key:1"):
        place.stay("key:1")
    place.stay("key:2")
    assert len(place.admission.leases) == 3


async def test_an_address_has_a_bounded_number_of_connections_loopback_excepted() -> None:
    place = Place(address_connections_max=2, identity_connections_max=100)
    place.stay()
    place.stay()
    with pytest.raises(TooManyConnections, match="address"):
        place.stay()
    place.stay(address="192.0.2.2")
    for _ in range(5):
        place.stay(address="127.0.0.1")


async def test_who_leaves_makes_room() -> None:
    place = Place(address_connections_max=1, identity_connections_max=1, unauthenticated_max=1)
    for _ in range(3):
        lease = place.admission.admit(Caller(Principal("key:1"), "192.0.2.1"), place.ended.append)
        lease.release()
        lease.release()
        unknown = place.admission.leases.admit_unauthenticated("192.0.2.1", place.ended.append)
        unknown.release()
    assert len(place.admission.leases) == 0


async def test_without_a_login_connections_of_anybody_are_not_counted_as_one() -> None:
    place = Place(identity_connections_max=2)
    for _ in range(5):
        place.admission.admit(Caller(ANYONE, "127.0.0.1"), place.ended.append)


async def test_those_who_have_not_said_who_they_are_are_few_and_stay_for_seconds() -> None:
    place = Place(unauthenticated_max=2, auth_timeout_s=0.02)
    secret = place.add()
    known = place.admission.leases.admit_unauthenticated("127.0.0.1", place.ended.append)
    place.admission.leases.admit_unauthenticated("127.0.0.1", place.ended.append)
    with pytest.raises(TooManyConnections):
        place.admission.leases.admit_unauthenticated("127.0.0.1", place.ended.append)
    known.present(secret)
    place.admission.leases.admit_unauthenticated("127.0.0.1", place.ended.append)
    await eventually_async(lambda: len(place.ended) == 2, "both are told")
    assert {type(error) for error in place.ended} == {Unauthenticated}


async def test_a_revoked_key_ends_its_visits_and_no_others() -> None:
    place = Place()
    secret = place.add("a")
    place.admission.admit(place.admission.identify(facts(secret)), place.ended.append)
    place.stay("jwt:alice")
    place.revoke_all()
    assert [type(error) for error in place.ended] == [CredentialExpired]


async def test_one_visit_that_cannot_be_ended_keeps_no_other_from_its_end(caplog: pytest.LogCaptureFixture) -> None:
    place = Place()
    secret = place.add("a")

    def fail(_error: TwincastError) -> None:
        raise RuntimeError("the socket is in no state for that")

    for end in (fail, place.ended.append, fail, place.ended.append):
        place.admission.admit(place.admission.identify(facts(secret)), end)
    place.revoke_all()
    assert [type(error) for error in place.ended] == [CredentialExpired] * 2
    assert caplog.text.count("Traceback") == 2
    assert caplog.text.count("could not be ended") == 2


class FailingKeyring:
    """A keyring on a disk that gives it, or not."""

    def __init__(self, keys: Sequence[Key]) -> None:
        self.keys = tuple(keys)
        self.failure: Exception | None = None
        self.looks = 0

    async def __call__(self, unless_version: int) -> Keyring | None:
        self.looks += 1
        if self.failure is not None:
            raise self.failure
        return None if unless_version == len(self.keys) else Keyring(len(self.keys), self.keys)

    async def looked_at(self) -> None:
        before = self.looks
        await eventually_async(lambda: self.looks >= before + 2, "the keyring is looked at again")


@contextlib.asynccontextmanager
async def followed(place: Place, keyring: FailingKeyring) -> AsyncIterator[None]:
    running = asyncio.create_task(place.admission.run(keyring))
    try:
        yield
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def test_a_disk_that_does_not_give_the_keys_for_a_moment_changes_nothing() -> None:
    place = Place()
    secret = place.add()
    lease = place.admission.admit(place.admission.identify(facts(secret)), place.ended.append)
    keyring = FailingKeyring(place.keys)
    async with followed(place, keyring):
        keyring.failure = JournalUnavailable("EIO")
        await keyring.looked_at()
        place.now_s += KEYS_UNSEEN_MAX_S - 0.1
        await keyring.looked_at()
        assert place.admission.identify(facts(secret)).principal == lease.principal
        assert not place.ended
        keyring.failure = None
        await keyring.looked_at()
        place.now_s += KEYS_UNSEEN_MAX_S
        keyring.failure = JournalUnavailable("EIO")
        await keyring.looked_at()
        assert place.admission.identify(facts(secret)), "the time counts from the last look that succeeded"


async def test_no_api_key_is_believed_while_it_cannot_be_seen_which_were_revoked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    place = Place(anonymous_may_read=True)
    secret = place.add()
    ticket = place.admission.issue_ticket(place.admission.identify(facts(secret)))
    principal = place.admission.admit(place.admission.identify(facts(secret)), place.ended.append).principal
    assert principal is not None
    reader_ended: list[TwincastError] = []
    place.admission.admit(place.admission.identify(HERE), reader_ended.append)
    keyring = FailingKeyring(place.keys)
    async with followed(place, keyring):
        keyring.failure = JournalUnavailable("EIO")
        await keyring.looked_at()
        place.now_s += KEYS_UNSEEN_MAX_S
        await keyring.looked_at()
        assert [type(error) for error in place.ended] == [JournalUnavailable], "it may come back: it is not refused"
        for refused in (
            lambda: place.admission.identify(facts(secret)),
            lambda: place.admission.identify(facts(f"{secret}x")),
            lambda: place.admission.identify(HERE, ticket=once(ticket)),
            lambda: place.admission.recheck(principal),
        ):
            with pytest.raises(JournalUnavailable, match="revoked cannot be seen: EIO"):
                refused()
        assert place.admission.identify(HERE).principal == READER, "who needs no key is not concerned"
        assert not reader_ended
        keyring.failure = None
        await keyring.looked_at()
        assert place.admission.identify(facts(secret)).principal == principal
    assert caplog.text.count("no API key is believed") == 1


async def test_a_disk_that_hangs_is_one_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twincast.access.revocation.KEYRING_WAIT_S", 0.01)
    place = Place()
    secret = place.add()
    asked, answer = asyncio.Event(), asyncio.Event()

    async def keyring(_unless_version: int) -> Keyring | None:
        asked.set()
        await answer.wait()
        return None

    running = asyncio.create_task(place.admission.run(keyring))
    await asked.wait()

    def is_doubted() -> bool:
        place.now_s += 1
        return bool(place.admission.authenticator.doubt)

    await eventually_async(is_doubted, "no key is believed")
    with pytest.raises(JournalUnavailable, match="does not answer"):
        place.admission.identify(facts(secret))
    answer.set()
    await eventually_async(lambda: not place.admission.authenticator.doubt, "they are believed again")
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_a_fault_that_nobody_foresaw_ends_what_follows_the_keyring() -> None:
    keyring = FailingKeyring(())
    keyring.failure = RuntimeError("a fault")
    with pytest.raises(ExceptionGroup) as failed:
        async with asyncio.timeout(5):
            await Place().admission.run(keyring)
    assert failed.group_contains(RuntimeError)


async def test_the_first_key_ends_the_visits_of_those_who_had_none() -> None:
    place = Place()
    place.admission.admit(place.admission.identify(HERE), place.ended.append)
    place.add()
    assert [type(error) for error in place.ended] == [Unauthenticated]


async def test_a_credential_is_renewed_by_its_owner_alone() -> None:
    place = Place()
    mine, others = place.add("a"), place.add("b")
    lease = place.admission.leases.admit_unauthenticated("127.0.0.1", place.ended.append)
    principal = lease.present(mine)
    assert lease.present(mine) == principal
    with pytest.raises(NotPermitted, match="a renewal keeps"):
        lease.present(others)
    with pytest.raises(Unauthenticated):
        lease.present("wrong")
    assert lease.principal == principal


async def test_a_renewal_keeps_the_rights_and_takes_the_new_end_sooner_or_later() -> None:
    issuer = Issuer()
    tokens = Tokens(StaticKey(issuer.pem()), issuer=ISSUER, audience=AUDIENCE, algorithms=["ES256"], rate=None)
    place = Place(tokens=tokens)
    lease = place.admission.leases.admit_unauthenticated("127.0.0.1", place.ended.append)

    def token(lives_s: float, subject: str = "alice", read: str = "lab/*") -> str:
        return issuer.token(subject, lives_s=lives_s, twincast={"read": [read]})

    first = lease.present(token(600))
    for lives_s in (900, 300):
        renewed = lease.present(token(lives_s))
        assert first.expires_s is not None and renewed.expires_s is not None
        assert renewed.expires_s - first.expires_s == pytest.approx(lives_s - 600, abs=10)
        assert lease.principal is renewed
    for other in (token(600, read="*"), token(600, subject="bob")):
        with pytest.raises(NotPermitted, match="a renewal keeps"):
            lease.present(other)
        assert lease.principal is renewed


async def test_a_visit_ends_with_its_credential() -> None:
    place = Place()
    place.add()
    until_s = 1_000.02
    place.admission.admit(Caller(Principal("jwt:alice", expires_s=until_s), "127.0.0.1"), place.ended.append)
    place.now_s = 0.01
    assert place.admission.revocation.sweep() == pytest.approx(0.01)
    assert not place.ended
    place.now_s = 0.02
    place.admission.revocation.sweep()
    assert isinstance(place.ended[0], CredentialExpired)


@pytest.mark.parametrize("jump_s", [7_200, 40_000 * 86_400])
async def test_a_clock_that_is_set_right_ends_every_visit_beyond_its_credential(jump_s: float) -> None:
    place = Place()
    place.add()
    ends = (3_600.0, 7_000.0, 1e12, None)
    for number, until_s in enumerate(ends):
        caller = Caller(Principal(f"jwt:{number}", expires_s=until_s), "127.0.0.1")
        place.admission.admit(caller, place.ended.append)

    async def keyring(_unless_version: int) -> Keyring | None:
        return None

    running = asyncio.create_task(place.admission.run(keyring))
    await asyncio.sleep(0)  # it has looked once, and waits; no timer of the loop's knows what comes
    place.now_s = jump_s
    await eventually_async(lambda: len(place.ended) == 2, "two are over")
    place.now_s = 0.0
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert {type(error) for error in place.ended} == {CredentialExpired}


async def test_what_cannot_be_ended_keeps_nobody_else_in() -> None:
    place = Place()
    place.add()
    brief = Caller(Principal("jwt:alice", expires_s=1_010.0), "127.0.0.1")

    def break_down(error: TwincastError) -> None:
        raise RuntimeError

    place.admission.admit(brief, break_down)
    place.admission.admit(brief, place.ended.append)
    place.now_s = 11.0
    place.admission.revocation.sweep()
    assert len(place.ended) == 1


async def test_a_ticket_lets_in_whoever_asked_for_it_once() -> None:
    place = Place()
    secret = place.add()
    caller = place.admission.identify(facts(secret))
    ticket = place.admission.issue_ticket(caller)
    assert place.admission.identify(HERE, ticket=once(ticket)).principal == caller.principal
    with pytest.raises(Unauthenticated):
        place.admission.identify(HERE, ticket=once(ticket))
    late = place.admission.issue_ticket(caller)
    place.revoke_all()
    with pytest.raises(CredentialExpired):
        place.admission.identify(HERE, ticket=once(late))


@pytest.mark.parametrize("is_expired", [False, True], ids=["wrong", "expired"])
def test_a_ticket_that_is_not_good_is_a_failed_login(is_expired: bool) -> None:
    place = Place()
    place.add()
    alice = Caller(Principal("jwt:alice", expires_s=1_010.0), "192.0.2.7")
    tickets = [place.admission.issue_ticket(alice) if is_expired else f"wrong {number}" for number in range(11)]
    place.now_s = 11.0 if is_expired else 0.0
    there = RequestFacts("192.0.2.1", "localhost")
    for ticket in tickets[:10]:
        with pytest.raises(Unauthenticated):
            place.admission.identify(there, ticket=once(ticket))
    with pytest.raises(RateLimited):
        place.admission.identify(there, ticket=once(tickets[10]))
    with pytest.raises(RateLimited):
        place.admission.identify(there._replace(authorization="Bearer wrong"))


async def test_a_ticket_does_not_outlive_the_credential_that_it_was_got_with() -> None:
    place = Place()
    place.add()
    ticket = place.admission.issue_ticket(Caller(Principal("jwt:alice", expires_s=1_010.0), "127.0.0.1"))
    place.now_s = 10.0
    with pytest.raises(CredentialExpired):
        place.admission.identify(HERE, ticket=once(ticket))


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        (Caller(Principal("key:1"), "192.0.2.1"), Caller(Principal("key:1"), "192.0.2.2"), "key:2"),
        (Caller(READER, "2001:db8::1"), Caller(READER, "2001:db8::2"), "key:1"),
    ],
    ids=["an identity", "an address without one"],
)
def test_nobody_uses_up_the_tickets_of_somebody_else(one: Caller, same: Caller, other: str) -> None:
    place = Place(anonymous_may_read=True)
    place.add()
    for _ in range(100):
        place.admission.issue_ticket(one)
    for again in (one, same):
        with pytest.raises(RateLimited):
            place.admission.issue_ticket(again)
    place.admission.issue_ticket(Caller(Principal(other), one.address))
    place.admission.issue_ticket(Caller(READER, "192.0.2.9"))


def test_whoever_was_let_in_goes_on_while_he_would_be_let_in() -> None:
    place = Place()
    place.admission.recheck(ANYONE)
    secret = place.add()
    principal = place.admission.identify(facts(secret)).principal
    brief = Principal("jwt:alice", expires_s=1_010.0)
    for each in (principal, brief):
        place.admission.recheck(each)
    with pytest.raises(Unauthenticated, match="from now on"):
        place.admission.recheck(ANYONE)
    place.now_s = 10.0
    with pytest.raises(CredentialExpired, match="has expired"):
        place.admission.recheck(brief)
    place.revoke_all()
    with pytest.raises(CredentialExpired, match="was revoked"):
        place.admission.recheck(principal)


async def test_a_websocket_may_say_later_who_it_is_if_nobody_is_let_in_unasked() -> None:
    place = Place(anonymous_may_read=True)
    assert place.admission.admit_websocket(HERE, place.ended.append, wants_to_log_in=False).principal is ANYONE
    secret = place.add()
    assert place.admission.admit_websocket(HERE, place.ended.append, wants_to_log_in=True).principal is None
    reader = place.admission.admit_websocket(HERE, place.ended.append, wants_to_log_in=False).principal
    assert reader is not None and not reader.may("publish", "a")
    with pytest.raises(Unauthenticated):
        place.admission.admit_websocket(facts("wrong"), place.ended.append, wants_to_log_in=True)
    known = place.admission.admit_websocket(facts(secret), place.ended.append, wants_to_log_in=False)
    assert known.principal is not None


async def test_host_and_origin_are_looked_at_before_anybody_is_asked_who_he_is() -> None:
    place = Place(proxies=[f"{PROXY}/32"])
    place.add()
    for foreign in (HERE._replace(host="rebound.example.org"), HERE._replace(origin="https://elsewhere.example.org")):
        for wants_to_log_in in (False, True):
            with pytest.raises(Forbidden):
                place.admission.admit_websocket(foreign, place.ended.append, wants_to_log_in=wants_to_log_in)
    assert len(place.admission.leases) == 0
    proxied = RequestFacts(PROXY, "localhost", forwarded_for="192.0.2.7")
    assert place.admission.admit_websocket(proxied, place.ended.append, wants_to_log_in=False).address == "192.0.2.7"


async def test_the_keyring_is_followed() -> None:
    place = Place()
    key, secret = make_key("a", Rights.of({"read": ["*"]}), now_utc=NOW_UTC, rate_per_s=None, expires_s=None)
    asked: list[int] = []

    async def keyring(unless_version: int) -> Keyring | None:
        asked.append(unless_version)
        return Keyring(7, (key,)) if unless_version != 7 else None

    running = asyncio.create_task(place.admission.run(keyring))
    await eventually_async(lambda: len(asked) >= 2, "the keyring is looked at again")
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert place.admission.identify(facts(secret)).principal.id == f"key:{key.id}"
    assert asked[:2] == [-1, 7]


async def test_everything_that_a_client_sends_counts_not_its_updates_alone() -> None:
    place = Place(frames_rate=Rate(10, 20))  # type: ignore[arg-type]
    place.add()
    rated = Principal("key:1", rate=Rate(5, 5))
    lease = place.admission.admit(Caller(rated, "192.0.2.1"), place.ended.append)
    assert lease.charge(updates=0, frames=20) == 0
    assert lease.charge(updates=0, frames=5) == pytest.approx(0.5)
    place.now_s = 100.0
    assert lease.charge(updates=10, frames=10) == pytest.approx(1.0)
    place.now_s = 200.0
    assert lease.charge(updates=0, frames=20) == 0
    assert lease.charge(updates=0, frames=-5) == 0, "what was counted in advance and did not come is given back"
    assert lease.charge(updates=0, frames=5) == 0


async def test_those_without_an_identity_share_the_rate_of_their_address() -> None:
    place = Place(anonymous_may_read=True, frames_rate=Rate(10, 20))  # type: ignore[arg-type]
    place.add()
    unknown = place.admission.leases.admit_unauthenticated("192.0.2.1", place.ended.append)
    here, elsewhere = (
        place.admission.admit(Caller(ANYONE, address), place.ended.append) for address in ("192.0.2.1", "192.0.2.2")
    )
    assert unknown.charge(updates=0, frames=15) == 0
    assert here.charge(updates=0, frames=15) == pytest.approx(1.0)
    assert elsewhere.charge(updates=0, frames=15) == 0


async def test_without_a_login_there_is_no_rate() -> None:
    lease = Place(frames_rate=Rate(1, 1)).admission.admit(Caller(ANYONE, "127.0.0.1"), print)  # type: ignore[arg-type]
    assert lease.charge(updates=1_000, frames=1_000) == 0


@pytest.mark.parametrize("how", ["revoked", "expired"])
def test_a_stream_that_comes_back_by_its_ticket_ends_with_its_owners_credential(how: str) -> None:
    place = Place()
    secret = place.add()
    owner = place.admission.identify(facts(secret)).principal
    if how == "expired":
        owner = Principal("jwt:alice", expires_s=1_050.0)
    use = once(place.admission.issue_ticket(Caller(owner, "127.0.0.1")), resumes=True)
    for _ in range(3):
        assert place.admission.identify(HERE, ticket=use).principal == owner
    if how == "expired":
        place.now_s = 50.0
    else:
        place.revoke_all()
    with pytest.raises(CredentialExpired):
        place.admission.identify(HERE, ticket=use)


def test_streams_that_come_back_to_a_server_that_was_restarted_lock_nobody_out() -> None:
    place = Place()
    secret = place.add()
    for number in range(50):
        with pytest.raises(Unauthenticated):
            place.admission.identify(HERE, ticket=once(f"of before {number}", resumes=True))
    with pytest.raises(Unauthenticated):
        place.admission.identify(facts("wrong"))
    assert place.admission.identify(facts(secret))


STEPS = STEPS_A_UNIT


async def test_what_an_identity_reads_counts_whatever_it_reads_by() -> None:
    place = Place(frames_rate=Rate(10, 20))  # type: ignore[arg-type]
    place.add()
    caller = Caller(Principal("key:1"), "192.0.2.1")
    lease = place.admission.admit(caller, place.ended.append)
    assert place.admission.limits.begin_reading(caller).spend(15 * STEPS) == 0
    assert lease.spend(10 * STEPS) == pytest.approx(0.5)
    with pytest.raises(RateLimited) as refused:
        place.admission.limits.begin_reading(caller)
    assert refused.value.retry_after_s == pytest.approx(0.5)
    assert place.admission.limits.begin_reading(Caller(Principal("key:2"), "192.0.2.1")).account == "key:2"
    place.now_s = 0.5
    place.admission.limits.begin_reading(caller)


async def test_a_visit_is_read_no_more_until_what_it_asked_for_is_paid_and_no_other_visit_is_held_for_it() -> None:
    place = Place(frames_rate=Rate(10, 20))  # type: ignore[arg-type]
    place.add()
    caller = Caller(Principal("key:1"), "192.0.2.1")
    greedy, other = (place.admission.admit(caller, place.ended.append) for _ in range(2))
    greedy.spend(50 * STEPS)
    other.spend(STEPS)
    assert greedy.charge(updates=0, frames=1) == pytest.approx(3.1), "20 at once, and 10 a second"
    assert other.charge(updates=0, frames=1) == pytest.approx(0.1), "it waits for what it asked for itself"
    place.now_s = 0.1
    assert other.charge(updates=0, frames=1) == 0
    place.now_s = 3.1
    assert greedy.charge(updates=0, frames=0) == pytest.approx(0.0, abs=1e-6)


async def test_what_is_read_within_the_rate_is_never_waited_for() -> None:
    place = Place(frames_rate=Rate(10, 20))  # type: ignore[arg-type]
    place.add()
    lease = place.admission.admit(Caller(Principal("key:1"), "192.0.2.1"), place.ended.append)
    for _ in range(100):
        place.now_s += 1.0
        lease.spend(10 * STEPS)
        assert lease.charge(updates=0, frames=1) == 0


async def test_a_debt_of_reading_is_forgiven_after_a_minute_and_one_of_updates_is_its_own() -> None:
    place = Place(frames_rate=Rate(10, 20))  # type: ignore[arg-type]
    place.add()
    principal = Principal("key:1", rate=Rate(10, 20))
    budget = place.admission.limits.budget(Caller(principal, "192.0.2.1"))
    assert budget.spend(1_000_000 * STEPS) == pytest.approx(DEBT_MAX_S)
    place.admission.limits.spend(principal, 20)
    place.now_s = DEBT_MAX_S
    assert budget.spend(0) == 0


async def test_readers_without_an_identity_share_with_their_address() -> None:
    place = Place(anonymous_may_read=True, frames_rate=Rate(10, 20))  # type: ignore[arg-type]
    place.add()
    place.admission.limits.budget(Caller(READER, "2001:db8::1")).spend(50 * STEPS)
    with pytest.raises(RateLimited):
        place.admission.limits.begin_reading(Caller(READER, "2001:db8::2"))
    place.admission.limits.begin_reading(Caller(READER, "2001:db8:0:1::1"))


async def test_without_a_login_each_reader_has_means_of_its_own() -> None:
    place = Place(frames_rate=Rate(10, 20))  # type: ignore[arg-type]
    here = Caller(ANYONE, "127.0.0.1")
    greedy = place.admission.limits.begin_reading(here)
    assert greedy.spend(50 * STEPS) == pytest.approx(3.0)
    assert place.admission.limits.begin_reading(here).account != greedy.account
    lease, other = (place.admission.admit(here, place.ended.append) for _ in range(2))
    lease.spend(50 * STEPS)
    other.spend(STEPS)
    assert lease.account != other.account
    assert lease.charge(updates=0, frames=1) == pytest.approx(3.0)
    assert other.charge(updates=0, frames=1) == 0
