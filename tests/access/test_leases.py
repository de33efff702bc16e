"""Leases: how many there may be, how they are assigned, renewed and released."""

import pytest

from tests.access.entrance import Entrance
from tests.credentials import Issuer, trusting
from tests.running import eventually_async
from twincast.access.jwks import StaticKey
from twincast.access.rates import STEPS_A_UNIT
from twincast.access.request import Caller
from twincast.core.rights import ANYONE, Principal, Rate
from twincast.errors import NotPermitted, Stopping, TooManyConnections, Unauthenticated

STEPS = STEPS_A_UNIT


async def test_an_identity_has_a_bounded_number_of_connections() -> None:
    entrance = Entrance(identity_connections_max=2)
    entrance.admit("key:1")
    entrance.admit("key:1")
    with pytest.raises(TooManyConnections, match="key:1"):
        entrance.admit("key:1")
    entrance.admit("key:2")
    assert len(entrance.admission.leases) == 3


async def test_an_address_has_a_bounded_number_of_connections_loopback_excepted() -> None:
    entrance = Entrance(address_connections_max=2, identity_connections_max=100)
    entrance.admit()
    entrance.admit()
    with pytest.raises(TooManyConnections, match="address"):
        entrance.admit()
    entrance.admit(address="192.0.2.2")
    for _ in range(5):
        entrance.admit(address="127.0.0.1")


class Others:
    """Other servers, with connections of everybody."""

    def __init__(self, count: int) -> None:
        self.count = count

    def of_identity(self, identity: str) -> int:
        return self.count if identity == "key:1" else 0

    def of_address(self, block: str) -> int:
        return self.count if block in {"192.0.2.1", "127.0.0.1", "2001:db8::/64"} else 0


async def test_connections_to_other_servers_count_by_identity_and_by_address_loopback_excepted() -> None:
    entrance = Entrance(identity_connections_max=3, address_connections_max=5)
    leases = entrance.admission.leases
    leases.elsewhere = others = Others(2)
    entrance.admit("key:1")
    with pytest.raises(TooManyConnections, match="key:1"):
        entrance.admit("key:1")
    entrance.admit("key:2")
    entrance.admit("key:3")
    with pytest.raises(TooManyConnections, match="address"):
        entrance.admit("key:4")
    entrance.admit("key:4", address="2001:db8::1")
    for _ in range(3):
        entrance.admit("key:5", address="127.0.0.1")
    assert leases.by_identity() == {"key:1": 1, "key:2": 1, "key:3": 1, "key:4": 1, "key:5": 3}
    assert leases.by_address() == {"192.0.2.1": 3, "2001:db8::/64": 1}
    others.count = 0
    entrance.admit("key:1")
    assert leases.by_identity()["key:1"] == 2


async def test_a_server_that_is_about_to_stop_admits_nobody() -> None:
    entrance = Entrance()
    entrance.admit()
    entrance.admission.leases.is_closed = True
    with pytest.raises(Stopping):
        entrance.admit()
    with pytest.raises(Stopping):
        entrance.admission.leases.admit_unauthenticated("127.0.0.1", entrance.ended.append)
    assert len(entrance.admission.leases) == 1 and entrance.ended == []


async def test_a_released_lease_makes_room() -> None:
    entrance = Entrance(address_connections_max=1, identity_connections_max=1, unauthenticated_max=1)
    for _ in range(3):
        lease = entrance.admission.admit(Caller(Principal("key:1"), "192.0.2.1"), entrance.ended.append)
        lease.release()
        lease.release()
        unknown = entrance.admission.leases.admit_unauthenticated("192.0.2.1", entrance.ended.append)
        unknown.release()
    assert len(entrance.admission.leases) == 0


async def test_without_a_login_connections_are_not_counted_by_identity() -> None:
    entrance = Entrance(identity_connections_max=2)
    for _ in range(5):
        entrance.admission.admit(Caller(ANYONE, "127.0.0.1"), entrance.ended.append)


async def test_unauthenticated_connections_are_few_and_last_for_seconds() -> None:
    entrance = Entrance(unauthenticated_max=2, auth_timeout_s=0.02)
    secret = entrance.add_key()
    known = entrance.admission.leases.admit_unauthenticated("127.0.0.1", entrance.ended.append)
    entrance.admission.leases.admit_unauthenticated("127.0.0.1", entrance.ended.append)
    with pytest.raises(TooManyConnections):
        entrance.admission.leases.admit_unauthenticated("127.0.0.1", entrance.ended.append)
    known.present(secret)
    entrance.admission.leases.admit_unauthenticated("127.0.0.1", entrance.ended.append)
    await eventually_async(lambda: len(entrance.ended) == 2, "both are told")
    assert {type(error) for error in entrance.ended} == {Unauthenticated}


async def test_a_lease_is_renewed_by_a_credential_of_its_own_principal_alone() -> None:
    entrance = Entrance()
    mine, others = entrance.add_key("a"), entrance.add_key("b")
    lease = entrance.admission.leases.admit_unauthenticated("127.0.0.1", entrance.ended.append)
    principal = lease.present(mine)
    assert lease.present(mine) == principal
    with pytest.raises(NotPermitted, match="a renewal keeps"):
        lease.present(others)
    with pytest.raises(Unauthenticated):
        lease.present("wrong")
    assert lease.principal == principal


async def test_a_renewal_keeps_the_rights_and_takes_the_new_end_sooner_or_later() -> None:
    issuer = Issuer()
    tokens = trusting(StaticKey(issuer.pem()))
    entrance = Entrance(tokens=tokens)
    lease = entrance.admission.leases.admit_unauthenticated("127.0.0.1", entrance.ended.append)

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


async def test_a_connection_is_not_read_until_its_own_reads_are_earned_and_no_other_waits_for_it() -> None:
    entrance = Entrance(frames_rate=Rate(10, 20))
    entrance.add_key()
    caller = Caller(Principal("key:1"), "192.0.2.1")
    greedy, other = (entrance.admission.admit(caller, entrance.ended.append) for _ in range(2))
    greedy.spend(50 * STEPS)
    other.spend(STEPS)
    assert greedy.charge(updates=0, frames=1) == pytest.approx(3.1), "20 at once, and 10 a second"
    assert other.charge(updates=0, frames=1) == pytest.approx(0.1), "it waits for what it asked for itself"
    entrance.now_s = 0.1
    assert other.charge(updates=0, frames=1) == 0
    entrance.now_s = 3.1
    assert greedy.charge(updates=0, frames=0) == pytest.approx(0.0, abs=1e-6)


async def test_reads_within_the_rate_never_wait() -> None:
    entrance = Entrance(frames_rate=Rate(10, 20))
    entrance.add_key()
    lease = entrance.admission.admit(Caller(Principal("key:1"), "192.0.2.1"), entrance.ended.append)
    for _ in range(100):
        entrance.now_s += 1.0
        lease.spend(10 * STEPS)
        assert lease.charge(updates=0, frames=1) == 0
