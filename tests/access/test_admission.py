"""The entrance: requests are identified, connections admitted, and what was admitted is checked again."""

import dataclasses

import pytest

from tests.access.entrance import HERE, PROXY, Entrance, facts_with, use_of
from twincast.access.authenticator import READER
from twincast.access.request import Caller, RequestFacts
from twincast.access.tickets import Asked, Granted, TicketElsewhere
from twincast.core.rights import ANYONE, Principal, Rate
from twincast.errors import (
    CredentialExpired,
    Forbidden,
    JournalUnavailable,
    RateLimited,
    TwincastError,
    Unauthenticated,
)


def test_a_good_credential_identifies_the_caller() -> None:
    entrance = Entrance()
    secret = entrance.add_key()
    caller = entrance.admission.identify(facts_with(secret))
    assert caller.principal.id == f"key:{entrance.keys[0].id}"
    assert caller.address == "127.0.0.1"
    assert entrance.admission.identify(HERE._replace(authorization=f"bearer  {secret} ")).principal == caller.principal


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic YTpi", "twc_x", "Bearer wrong"])
def test_a_request_without_a_good_credential_is_refused(header: str | None) -> None:
    entrance = Entrance()
    entrance.add_key()
    with pytest.raises(Unauthenticated):
        entrance.admission.identify(HERE._replace(authorization=header))


def test_a_server_without_a_login_answers_its_own_machine_alone() -> None:
    entrance = Entrance()
    assert entrance.admission.identify(HERE).principal is ANYONE
    assert entrance.admission.identify(HERE._replace(peer=None)).principal is ANYONE
    assert entrance.admission.identify(HERE._replace(peer="::ffff:127.0.0.1")).principal is ANYONE
    for peer in ("192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"):
        with pytest.raises(Forbidden, match="only programs on its own machine"):
            entrance.admission.identify(HERE._replace(peer=peer))
    secret = entrance.add_key()
    assert entrance.admission.identify(facts_with(secret, "192.0.2.1")).address == "192.0.2.1"


def test_only_a_trusted_proxy_says_where_a_client_is() -> None:
    entrance = Entrance(proxies=[f"{PROXY}/32"])
    secret = entrance.add_key()

    def seen(peer: str, forwarded_for: str) -> str:
        return entrance.admission.identify(facts_with(secret, peer, forwarded_for=forwarded_for)).address

    assert seen(PROXY, "192.0.2.7") == "192.0.2.7"
    assert seen(PROXY, "198.51.100.1, 192.0.2.7") == "192.0.2.7"  # what stands before it, the client said itself
    assert seen(PROXY, f"192.0.2.7, {PROXY}") == "192.0.2.7"
    assert seen(PROXY, "nonsense") == PROXY
    assert seen(PROXY, "") == PROXY
    assert seen("192.0.2.1", "127.0.0.1") == "192.0.2.1"


async def test_a_ticket_identifies_the_caller_that_it_was_issued_to_once() -> None:
    entrance = Entrance()
    secret = entrance.add_key()
    caller = entrance.admission.identify(facts_with(secret))
    ticket = entrance.admission.issue_ticket(caller)
    assert entrance.admission.identify(HERE, ticket=use_of(ticket)).principal == caller.principal
    with pytest.raises(Unauthenticated):
        entrance.admission.identify(HERE, ticket=use_of(ticket))
    late = entrance.admission.issue_ticket(caller)
    entrance.revoke_all()
    with pytest.raises(CredentialExpired):
        entrance.admission.identify(HERE, ticket=use_of(late))


@pytest.mark.parametrize("is_expired", [False, True], ids=["wrong", "expired"])
def test_a_ticket_that_is_not_good_is_a_failed_login(is_expired: bool) -> None:
    entrance = Entrance()
    entrance.add_key()
    alice = Caller(Principal("jwt:alice", expires_s=1_010.0), "192.0.2.7")
    tickets = [entrance.admission.issue_ticket(alice) if is_expired else f"wrong {number}" for number in range(11)]
    entrance.now_s = 11.0 if is_expired else 0.0
    there = RequestFacts("192.0.2.1", "localhost")
    for ticket in tickets[:10]:
        with pytest.raises(Unauthenticated):
            entrance.admission.identify(there, ticket=use_of(ticket))
    with pytest.raises(RateLimited):
        entrance.admission.identify(there, ticket=use_of(tickets[10]))
    with pytest.raises(RateLimited):
        entrance.admission.identify(there._replace(authorization="Bearer wrong"))


async def test_a_ticket_does_not_outlive_the_credential_that_it_was_got_with() -> None:
    entrance = Entrance()
    entrance.add_key()
    ticket = entrance.admission.issue_ticket(Caller(Principal("jwt:alice", expires_s=1_010.0), "127.0.0.1"))
    entrance.now_s = 10.0
    with pytest.raises(CredentialExpired):
        entrance.admission.identify(HERE, ticket=use_of(ticket))


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        (Caller(Principal("key:1"), "192.0.2.1"), Caller(Principal("key:1"), "192.0.2.2"), "key:2"),
        (Caller(READER, "2001:db8::1"), Caller(READER, "2001:db8::2"), "key:1"),
    ],
    ids=["an identity", "an address without one"],
)
def test_an_account_cannot_use_up_the_tickets_of_another(one: Caller, same: Caller, other: str) -> None:
    entrance = Entrance(anonymous_may_read=True)
    entrance.add_key()
    for _ in range(100):
        entrance.admission.issue_ticket(one)
    for again in (one, same):
        with pytest.raises(RateLimited):
            entrance.admission.issue_ticket(again)
    entrance.admission.issue_ticket(Caller(Principal(other), one.address))
    entrance.admission.issue_ticket(Caller(READER, "192.0.2.9"))


def test_a_principal_that_was_admitted_is_refused_once_it_would_not_be_admitted_now() -> None:
    entrance = Entrance()
    entrance.admission.recheck(ANYONE)
    secret = entrance.add_key()
    principal = entrance.admission.identify(facts_with(secret)).principal
    brief = Principal("jwt:alice", expires_s=1_010.0)
    for each in (principal, brief):
        entrance.admission.recheck(each)
    with pytest.raises(Unauthenticated, match="from now on"):
        entrance.admission.recheck(ANYONE)
    entrance.now_s = 10.0
    with pytest.raises(CredentialExpired, match="has expired"):
        entrance.admission.recheck(brief)
    entrance.revoke_all()
    with pytest.raises(CredentialExpired, match="was revoked"):
        entrance.admission.recheck(principal)


async def test_a_websocket_may_send_its_credential_later_unless_it_may_read_without() -> None:
    entrance = Entrance(anonymous_may_read=True)
    assert entrance.admission.admit_websocket(HERE, entrance.ended.append, wants_to_log_in=False).principal is ANYONE
    secret = entrance.add_key()
    assert entrance.admission.admit_websocket(HERE, entrance.ended.append, wants_to_log_in=True).principal is None
    reader = entrance.admission.admit_websocket(HERE, entrance.ended.append, wants_to_log_in=False).principal
    assert reader is not None and not reader.may("publish", "a")
    with pytest.raises(Unauthenticated):
        entrance.admission.admit_websocket(facts_with("wrong"), entrance.ended.append, wants_to_log_in=True)
    known = entrance.admission.admit_websocket(facts_with(secret), entrance.ended.append, wants_to_log_in=False)
    assert known.principal is not None


async def test_host_and_origin_are_checked_before_any_credential() -> None:
    entrance = Entrance(proxies=[f"{PROXY}/32"])
    entrance.add_key()
    for foreign in (HERE._replace(host="rebound.example.org"), HERE._replace(origin="https://elsewhere.example.org")):
        for wants_to_log_in in (False, True):
            with pytest.raises(Forbidden):
                entrance.admission.admit_websocket(foreign, entrance.ended.append, wants_to_log_in=wants_to_log_in)
    assert len(entrance.admission.leases) == 0
    proxied = RequestFacts(PROXY, "localhost", forwarded_for="192.0.2.7")
    assert (
        entrance.admission.admit_websocket(proxied, entrance.ended.append, wants_to_log_in=False).address == "192.0.2.7"
    )


@pytest.mark.parametrize("how", ["revoked", "expired"])
def test_a_stream_that_resumes_by_its_ticket_ends_with_its_owners_credential(how: str) -> None:
    entrance = Entrance()
    secret = entrance.add_key()
    owner = entrance.admission.identify(facts_with(secret)).principal
    if how == "expired":
        owner = Principal("jwt:alice", expires_s=1_050.0)
    use = use_of(entrance.admission.issue_ticket(Caller(owner, "127.0.0.1")), resumes=True)
    for _ in range(3):
        assert entrance.admission.identify(HERE, ticket=use).principal == owner
    if how == "expired":
        entrance.now_s = 50.0
    else:
        entrance.revoke_all()
    with pytest.raises(CredentialExpired):
        entrance.admission.identify(HERE, ticket=use)


def test_streams_that_resume_at_a_restarted_server_lock_no_address_out() -> None:
    entrance = Entrance()
    secret = entrance.add_key()
    for number in range(50):
        with pytest.raises(Unauthenticated):
            entrance.admission.identify(HERE, ticket=use_of(f"of before {number}", resumes=True))
    with pytest.raises(Unauthenticated):
        entrance.admission.identify(facts_with("wrong"))
    assert entrance.admission.identify(facts_with(secret))


class OtherServer:
    """A server that lets a principal in by each of its tickets, or has ended, or refuses."""

    def __init__(self, answer: Principal | TwincastError | None) -> None:
        self.answer = answer

    async def redeem(self, home: str, asked: Asked) -> Granted | None:
        if isinstance(self.answer, TwincastError):
            raise self.answer
        return None if self.answer is None else Granted(self.answer, "owner")

    def tell_began(self, home: str, key: str) -> None: ...

    def tell_ended(self, home: str, key: str) -> None: ...


async def test_whom_another_server_lets_in_has_the_rate_of_its_key_here() -> None:
    entrance = Entrance()
    secret = entrance.add_key(read=["lab/*"])
    known = entrance.admission.identify(facts_with(secret)).principal
    told = dataclasses.replace(known, rate=Rate(1.0, 5.0))
    entrance.admission.tickets.join("here", OtherServer(told))
    for _ in range(20):  # it is no failed login yet
        with pytest.raises(TicketElsewhere) as elsewhere:
            entrance.admission.identify(HERE, ticket=use_of("there.x"))
    caller = await entrance.admission.identify_elsewhere(HERE, elsewhere.value.use)
    assert caller.principal is known
    entrance.revoke_all()
    with pytest.raises(CredentialExpired):
        await entrance.admission.identify_elsewhere(HERE, use_of("there.x"))


@pytest.mark.parametrize("answer", [None, Unauthenticated("used")], ids=["it has ended", "it refuses"])
async def test_a_ticket_that_its_server_does_not_take_counts_as_a_failed_login(answer: Unauthenticated | None) -> None:
    entrance = Entrance(failed_logins_per_minute=3)
    entrance.add_key()
    facts = RequestFacts("192.0.2.1", "localhost")
    entrance.admission.tickets.join("here", other := OtherServer(answer))
    other.answer = JournalUnavailable("NATS cannot be reached")
    for _ in range(5):  # which says nothing of the ticket
        with pytest.raises(JournalUnavailable):
            await entrance.admission.identify_elsewhere(facts, use_of("there.x"))
    other.answer = answer
    for _ in range(5):  # with a position of this log nobody guesses
        with pytest.raises(Unauthenticated):
            await entrance.admission.identify_elsewhere(facts, use_of("there.x", resumes=True))
    for _ in range(3):
        with pytest.raises(Unauthenticated):
            await entrance.admission.identify_elsewhere(facts, use_of("there.x"))
    with pytest.raises(RateLimited):
        entrance.admission.identify(facts, ticket=use_of("there.x"))
