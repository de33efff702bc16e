"""Leases end with their credentials."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import pytest

from tests.access.entrance import HERE, Entrance, facts_with, use_of
from tests.credentials import NOW_UTC
from tests.running import eventually_async
from twincast.access.authenticator import READER
from twincast.access.keys import make_key
from twincast.access.request import Caller
from twincast.access.revocation import KEYS_UNSEEN_MAX_S
from twincast.core.keys import Key, Keyring
from twincast.core.rights import Principal, Rights
from twincast.errors import CredentialExpired, JournalUnavailable, TwincastError, Unauthenticated


async def test_a_revoked_key_ends_its_leases_and_no_others() -> None:
    entrance = Entrance()
    secret = entrance.add_key("a")
    entrance.admission.admit(entrance.admission.identify(facts_with(secret)), entrance.ended.append)
    entrance.admit("jwt:alice")
    entrance.revoke_all()
    assert [type(error) for error in entrance.ended] == [CredentialExpired]


async def test_a_lease_that_cannot_be_ended_keeps_no_other_from_its_end(caplog: pytest.LogCaptureFixture) -> None:
    entrance = Entrance()
    secret = entrance.add_key("a")

    def fail(_error: TwincastError) -> None:
        raise RuntimeError("the socket is in no state for that")

    for end in (fail, entrance.ended.append, fail, entrance.ended.append):
        entrance.admission.admit(entrance.admission.identify(facts_with(secret)), end)
    entrance.revoke_all()
    assert [type(error) for error in entrance.ended] == [CredentialExpired] * 2
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
async def followed(entrance: Entrance, keyring: FailingKeyring) -> AsyncIterator[None]:
    running = asyncio.create_task(entrance.admission.run(keyring))
    try:
        yield
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def test_a_disk_that_does_not_give_the_keys_for_a_moment_changes_nothing() -> None:
    entrance = Entrance()
    secret = entrance.add_key()
    lease = entrance.admission.admit(entrance.admission.identify(facts_with(secret)), entrance.ended.append)
    keyring = FailingKeyring(entrance.keys)
    async with followed(entrance, keyring):
        keyring.failure = JournalUnavailable("EIO")
        await keyring.looked_at()
        entrance.now_s += KEYS_UNSEEN_MAX_S - 0.1
        await keyring.looked_at()
        assert entrance.admission.identify(facts_with(secret)).principal == lease.principal
        assert not entrance.ended
        keyring.failure = None
        await keyring.looked_at()
        entrance.now_s += KEYS_UNSEEN_MAX_S
        keyring.failure = JournalUnavailable("EIO")
        await keyring.looked_at()
        assert entrance.admission.identify(facts_with(secret)), "the time counts from the last look that succeeded"


async def test_no_api_key_is_believed_while_it_cannot_be_seen_which_were_revoked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    entrance = Entrance(anonymous_may_read=True)
    secret = entrance.add_key()
    ticket = entrance.admission.issue_ticket(entrance.admission.identify(facts_with(secret)))
    principal = entrance.admission.admit(
        entrance.admission.identify(facts_with(secret)), entrance.ended.append
    ).principal
    assert principal is not None
    reader_ended: list[TwincastError] = []
    entrance.admission.admit(entrance.admission.identify(HERE), reader_ended.append)
    keyring = FailingKeyring(entrance.keys)
    async with followed(entrance, keyring):
        keyring.failure = JournalUnavailable("EIO")
        await keyring.looked_at()
        entrance.now_s += KEYS_UNSEEN_MAX_S
        await keyring.looked_at()
        assert [type(error) for error in entrance.ended] == [JournalUnavailable], "it may come back: it is not refused"
        for refused in (
            lambda: entrance.admission.identify(facts_with(secret)),
            lambda: entrance.admission.identify(facts_with(f"{secret}x")),
            lambda: entrance.admission.identify(HERE, ticket=use_of(ticket)),
            lambda: entrance.admission.recheck(principal),
        ):
            with pytest.raises(JournalUnavailable, match="revoked cannot be seen: EIO"):
                refused()
        assert entrance.admission.identify(HERE).principal == READER, "who needs no key is not concerned"
        assert not reader_ended
        keyring.failure = None
        await keyring.looked_at()
        assert entrance.admission.identify(facts_with(secret)).principal == principal
    assert caplog.text.count("no API key is believed") == 1


async def test_a_disk_that_hangs_is_one_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twincast.access.revocation.KEYRING_WAIT_S", 0.01)
    entrance = Entrance()
    secret = entrance.add_key()
    asked, answer = asyncio.Event(), asyncio.Event()

    async def keyring(_unless_version: int) -> Keyring | None:
        asked.set()
        await answer.wait()
        return None

    running = asyncio.create_task(entrance.admission.run(keyring))
    await asked.wait()

    def is_doubted() -> bool:
        entrance.now_s += 1
        return bool(entrance.admission.authenticator.doubt)

    await eventually_async(is_doubted, "no key is believed")
    with pytest.raises(JournalUnavailable, match="does not answer"):
        entrance.admission.identify(facts_with(secret))
    answer.set()
    await eventually_async(lambda: not entrance.admission.authenticator.doubt, "they are believed again")
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_an_unforeseen_fault_ends_what_follows_the_keyring() -> None:
    keyring = FailingKeyring(())
    keyring.failure = RuntimeError("a fault")
    with pytest.raises(ExceptionGroup) as failed:
        async with asyncio.timeout(5):
            await Entrance().admission.run(keyring)
    assert failed.group_contains(RuntimeError)


async def test_the_first_key_ends_the_leases_that_have_none() -> None:
    entrance = Entrance()
    entrance.admission.admit(entrance.admission.identify(HERE), entrance.ended.append)
    entrance.add_key()
    assert [type(error) for error in entrance.ended] == [Unauthenticated]


async def test_a_lease_ends_with_its_credential() -> None:
    entrance = Entrance()
    entrance.add_key()
    until_s = 1_000.02
    entrance.admission.admit(Caller(Principal("jwt:alice", expires_s=until_s), "127.0.0.1"), entrance.ended.append)
    entrance.now_s = 0.01
    assert entrance.admission.revocation.sweep() == pytest.approx(0.01)
    assert not entrance.ended
    entrance.now_s = 0.02
    entrance.admission.revocation.sweep()
    assert isinstance(entrance.ended[0], CredentialExpired)


@pytest.mark.parametrize("jump_s", [7_200, 40_000 * 86_400])
async def test_a_clock_that_is_set_right_ends_every_lease_beyond_its_credential(jump_s: float) -> None:
    entrance = Entrance()
    entrance.add_key()
    ends = (3_600.0, 7_000.0, 1e12, None)
    for number, until_s in enumerate(ends):
        caller = Caller(Principal(f"jwt:{number}", expires_s=until_s), "127.0.0.1")
        entrance.admission.admit(caller, entrance.ended.append)

    async def keyring(_unless_version: int) -> Keyring | None:
        return None

    running = asyncio.create_task(entrance.admission.run(keyring))
    await asyncio.sleep(0)  # it has looked once, and waits; no timer of the loop's knows what comes
    entrance.now_s = jump_s
    await eventually_async(lambda: len(entrance.ended) == 2, "two are over")
    entrance.now_s = 0.0
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert {type(error) for error in entrance.ended} == {CredentialExpired}


async def test_an_expired_lease_that_cannot_be_ended_keeps_no_other_from_its_end() -> None:
    entrance = Entrance()
    entrance.add_key()
    brief = Caller(Principal("jwt:alice", expires_s=1_010.0), "127.0.0.1")

    def break_down(error: TwincastError) -> None:
        raise RuntimeError

    entrance.admission.admit(brief, break_down)
    entrance.admission.admit(brief, entrance.ended.append)
    entrance.now_s = 11.0
    entrance.admission.revocation.sweep()
    assert len(entrance.ended) == 1


async def test_the_keys_are_read_at_once_where_that_is_asked_for() -> None:
    entrance = Entrance()
    secret = entrance.add_key()
    keyring = FailingKeyring(entrance.keys)
    other = Entrance()
    await other.admission.refresh(keyring)
    assert other.admission.identify(facts_with(secret)).principal.id == f"key:{entrance.keys[0].id}"
    await other.admission.refresh(keyring)
    assert keyring.looks == 2
    keyring.failure = JournalUnavailable("EIO")
    with pytest.raises(JournalUnavailable):
        await other.admission.refresh(keyring)
    assert other.admission.identify(facts_with(secret))


async def test_the_keyring_is_followed() -> None:
    entrance = Entrance()
    key, secret = make_key("a", Rights.of({"read": ["*"]}), now_utc=NOW_UTC, rate_per_s=None, expires_s=None)
    asked: list[int] = []

    async def keyring(unless_version: int) -> Keyring | None:
        asked.append(unless_version)
        return Keyring(7, (key,)) if unless_version != 7 else None

    running = asyncio.create_task(entrance.admission.run(keyring))
    await eventually_async(lambda: len(asked) >= 2, "the keyring is looked at again")
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert entrance.admission.identify(facts_with(secret)).principal.id == f"key:{key.id}"
    assert asked[:2] == [0, 7]
