"""How much in a time: what clients send and read, wrong credentials, pairing codes."""

import pytest

from tests.access.entrance import Entrance, facts_with
from tests.calls import calls_of
from twincast.access.authenticator import READER
from twincast.access.limits import FailedLogins, PairingAttempts
from twincast.access.pairing import CODE_LIFE_S
from twincast.access.rates import DEBT_MAX_S, STEPS_A_UNIT
from twincast.access.request import Caller
from twincast.core.rights import ANYONE, Principal, Rate
from twincast.errors import RateLimited, Unauthenticated

STEPS = STEPS_A_UNIT


def test_after_ten_failed_logins_in_a_minute_an_address_waits() -> None:
    entrance = Entrance()
    secret = entrance.add_key()
    for _ in range(10):
        with pytest.raises(Unauthenticated):
            entrance.admission.identify(facts_with("wrong", "192.0.2.1"))
    with pytest.raises(RateLimited) as limited:
        entrance.admission.identify(facts_with("wrong", "192.0.2.1"))
    assert limited.value.retry_after_s == pytest.approx(6)
    with pytest.raises(Unauthenticated):
        entrance.admission.identify(facts_with("wrong", "192.0.2.2"))
    # One who has a key is not locked out by a neighbour behind the same address.
    assert entrance.admission.identify(facts_with(secret, "192.0.2.1")).principal.may("read", "a")
    entrance.now_s += 6
    with pytest.raises(Unauthenticated):
        entrance.admission.identify(facts_with("wrong", "192.0.2.1"))


def test_an_ipv6_address_counts_by_the_block_that_a_customer_is_given() -> None:
    entrance = Entrance()
    entrance.add_key()
    for number in range(10):
        with pytest.raises(Unauthenticated):
            entrance.admission.identify(facts_with("wrong", f"2001:db8::{number:x}"))
    with pytest.raises(RateLimited):
        entrance.admission.identify(facts_with("wrong", "2001:db8::ffff"))
    with pytest.raises(Unauthenticated):
        entrance.admission.identify(facts_with("wrong", "2001:db8:0:1::1"))


async def test_every_frame_counts_not_the_updates_alone() -> None:
    entrance = Entrance(frames_rate=Rate(10, 20))
    entrance.add_key()
    rated = Principal("key:1", rate=Rate(5, 5))
    lease = entrance.admission.admit(Caller(rated, "192.0.2.1"), entrance.ended.append)
    assert lease.charge(updates=0, frames=20) == 0
    assert lease.charge(updates=0, frames=5) == pytest.approx(0.5)
    entrance.now_s = 100.0
    assert lease.charge(updates=10, frames=10) == pytest.approx(1.0)
    entrance.now_s = 200.0
    assert lease.charge(updates=0, frames=20) == 0
    assert lease.charge(updates=0, frames=-5) == 0, "what was counted in advance and did not come is given back"
    assert lease.charge(updates=0, frames=5) == 0


async def test_clients_without_an_identity_share_the_rate_of_their_address() -> None:
    entrance = Entrance(anonymous_may_read=True, frames_rate=Rate(10, 20))
    entrance.add_key()
    unknown = entrance.admission.leases.admit_unauthenticated("192.0.2.1", entrance.ended.append)
    here, elsewhere = (
        entrance.admission.admit(Caller(ANYONE, address), entrance.ended.append)
        for address in ("192.0.2.1", "192.0.2.2")
    )
    assert unknown.charge(updates=0, frames=15) == 0
    assert here.charge(updates=0, frames=15) == pytest.approx(1.0)
    assert elsewhere.charge(updates=0, frames=15) == 0


async def test_without_a_login_there_is_no_rate() -> None:
    lease = Entrance(frames_rate=Rate(1, 1)).admission.admit(Caller(ANYONE, "127.0.0.1"), print)
    assert lease.charge(updates=1_000, frames=1_000) == 0
    assert calls_of(lambda: lease.charge(1, 1)) == ["charge"], "so that a read costs next to nothing"


async def test_a_charge_calls_little_for_each_read_of_a_connection_comes_to_it() -> None:
    entrance = Entrance()
    entrance.add_key()
    lease = entrance.admission.admit(Caller(Principal("key:1", rate=Rate(5, 5)), "192.0.2.1"), entrance.ended.append)
    lease.charge(1, 1)
    assert len(calls_of(lambda: lease.charge(1, 1))) <= 7


async def test_what_an_identity_reads_counts_whatever_it_reads_by() -> None:
    entrance = Entrance(frames_rate=Rate(10, 20))
    entrance.add_key()
    caller = Caller(Principal("key:1"), "192.0.2.1")
    lease = entrance.admission.admit(caller, entrance.ended.append)
    assert entrance.admission.limits.begin_reading(caller).spend(15 * STEPS) == 0
    assert lease.spend(10 * STEPS) == pytest.approx(0.5)
    with pytest.raises(RateLimited) as refused:
        entrance.admission.limits.begin_reading(caller)
    assert refused.value.retry_after_s == pytest.approx(0.5)
    assert entrance.admission.limits.begin_reading(Caller(Principal("key:2"), "192.0.2.1")).account == "key:2"
    entrance.now_s = 0.5
    entrance.admission.limits.begin_reading(caller)


async def test_a_debt_of_reads_is_at_most_a_minute_and_updates_count_apart() -> None:
    entrance = Entrance(frames_rate=Rate(10, 20))
    entrance.add_key()
    principal = Principal("key:1", rate=Rate(10, 20))
    budget = entrance.admission.limits.budget(Caller(principal, "192.0.2.1"))
    assert budget.spend(1_000_000 * STEPS) == pytest.approx(DEBT_MAX_S)
    entrance.admission.limits.spend(principal, 20)
    entrance.now_s = DEBT_MAX_S
    assert budget.spend(0) == 0


async def test_readers_without_an_identity_share_the_account_of_their_address() -> None:
    entrance = Entrance(anonymous_may_read=True, frames_rate=Rate(10, 20))
    entrance.add_key()
    entrance.admission.limits.budget(Caller(READER, "2001:db8::1")).spend(50 * STEPS)
    with pytest.raises(RateLimited):
        entrance.admission.limits.begin_reading(Caller(READER, "2001:db8::2"))
    entrance.admission.limits.begin_reading(Caller(READER, "2001:db8:0:1::1"))


async def test_without_a_login_each_reader_has_an_account_of_its_own() -> None:
    entrance = Entrance(frames_rate=Rate(10, 20))
    here = Caller(ANYONE, "127.0.0.1")
    greedy = entrance.admission.limits.begin_reading(here)
    assert greedy.spend(50 * STEPS) == pytest.approx(3.0)
    assert entrance.admission.limits.begin_reading(here).account != greedy.account
    lease, other = (entrance.admission.admit(here, entrance.ended.append) for _ in range(2))
    lease.spend(50 * STEPS)
    other.spend(STEPS)
    assert lease.account != other.account
    assert lease.charge(updates=0, frames=1) == pytest.approx(3.0)
    assert other.charge(updates=0, frames=1) == 0


def test_all_addresses_together_try_no_more_codes_than_the_odds_allow() -> None:
    now_s = 0.0
    attempts = PairingAttempts(FailedLogins(10, lambda: now_s), lambda: now_s)
    looked_at = 0
    for number in range(100 * CODE_LIFE_S):  # a hundred a second, each from an address of its own
        now_s = number / 100
        try:
            attempts.begin(f"2001:db8:{number >> 8:x}:{number & 255:x}::1")
            attempts.end("", was_good=False)
            looked_at += 1
        except RateLimited:
            pass
    assert 60 + 60 * 4 < looked_at <= 60 + 60 * 5


def test_good_codes_cost_nothing() -> None:
    attempts = PairingAttempts(FailedLogins(10, lambda: 0.0), lambda: 0.0)
    for _ in range(200):
        attempts.begin("192.0.2.1")
        attempts.end("192.0.2.1", was_good=True)
    for _ in range(10):
        attempts.begin("192.0.2.1")
    with pytest.raises(RateLimited):
        attempts.begin("192.0.2.1")


async def test_what_is_sent_to_another_server_counts_here_and_what_is_sent_here_is_told_once() -> None:
    here, there = Entrance().admission.limits, Entrance().admission.limits
    rated, free = Principal("key:1", rate=Rate(10, 20)), Principal("key:2")
    here.spend(rated, 5)
    assert here.take_spent() == {}, "there is nobody to be told"
    for limits in (here, there):
        limits.tell_others()
        limits.login.is_required = True
        limits.spend(rated, 1)
    here.spend(rated, 4)
    here.spend(free, 9)
    here.charge(rated, "192.0.2.1", updates=3, frames=7)
    here.charge(free, "192.0.2.1", updates=3, frames=7)
    told = here.take_spent()
    assert told == {"key:1": 8}
    assert here.take_spent() == {}
    there.spend_elsewhere(told)
    there.spend(rated, 11)
    with pytest.raises(RateLimited):
        there.spend(rated, 1)
    assert there.take_spent() == {"key:1": 12}, "what was refused was not sent, and what was told is not told again"
