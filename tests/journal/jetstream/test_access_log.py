"""The verbs of commands on the keys of a shared log, at a real NATS server and without any server of twincast."""

from collections.abc import Iterator

import pytest

from tests.journal.jetstream.test_key_changes import code, key
from twincast.cluster.engine import Engine
from twincast.core.audit import Actor
from twincast.errors import JournalUnavailable, JournalUnusable, ValidationFailed
from twincast.journal.jetstream.access_log import AccessLog, has_keys
from twincast.journal.jetstream.address import NatsAddress

ACTOR = Actor("local:me", "command line")
NOW_UTC = "unused"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine(tmp_path_factory.mktemp("nats"), asks_token=False) as engine:
        yield engine


@pytest.fixture
def address(engine: Engine, request: pytest.FixtureRequest) -> NatsAddress:
    return NatsAddress.parse(f"{engine.url}/{abs(hash(request.node.name))}")


def test_keys_are_added_revoked_and_forgotten(address: NatsAddress) -> None:
    assert not has_keys(address)
    with AccessLog(address, make=True) as log:
        assert log.is_new
        assert list(log.keys()) == []
        log.add(key(1, "a"), ACTOR)
        log.add(key(2, "b"), ACTOR)
        with pytest.raises(ValidationFailed, match="'a' already"):
            log.add(key(3, "a"), ACTOR)
    assert has_keys(address)
    with AccessLog(address, make=True) as log:
        assert not log.is_new
        ended = log.revoke("a", NOW_UTC, ACTOR)
        assert (ended.id, ended.revoked_at_utc is None) == ("id1", False)
        with pytest.raises(ValidationFailed, match="no key in use"):
            log.revoke("a", NOW_UTC, ACTOR)
        log.add(key(3, "a"), ACTOR)
        by_name = log.keys()
        assert [(each.id, each.revoked_at_utc is None) for each in by_name] == [
            ("id1", False),
            ("id3", True),
            ("id2", True),
        ]
        assert [record.action for record in log.audit(3)] == ["keys add", "keys revoke", "keys add"]
        assert [record.detail for record in log.audit(99)][-1] == "a publish lab/*"
        assert log.clear(NOW_UTC, ACTOR) == 3
        assert list(log.keys()) == []
        assert log.audit(1)[0].detail == "3 keys forgotten"
    assert not has_keys(address)


def test_a_code_is_added_unless_its_name_is_in_use_or_too_many_wait(address: NatsAddress) -> None:
    with AccessLog(address, make=True) as log:
        log.add(key(1, "a"), ACTOR)
        with pytest.raises(ValidationFailed, match="'a' already"):
            log.pair(code(1, "a"), NOW_UTC, ACTOR, life_s=300, waiting_max=2)
        for number in range(3):  # one that is made anew counts once
            log.pair(code(number, "b"), NOW_UTC, ACTOR, life_s=300, waiting_max=2)
        log.pair(code(3, "c"), NOW_UTC, ACTOR, life_s=300, waiting_max=2)
        with pytest.raises(ValidationFailed, match="2 codes wait"):
            log.pair(code(4, "d"), NOW_UTC, ACTOR, life_s=300, waiting_max=2)
        assert [record.action for record in log.audit(9)] == ["pair"] * 4 + ["keys add"]


def test_a_mistyped_name_leaves_nothing_behind(address: NatsAddress) -> None:
    for _ in range(2):
        with pytest.raises(JournalUnusable, match="there is no log"):
            AccessLog(address)


def test_nats_that_is_not_there_is_named() -> None:
    with pytest.raises(JournalUnavailable, match=r"127\.0\.0\.1:9"):
        AccessLog(NatsAddress.parse("nats://127.0.0.1:9/lab"))
    with pytest.raises(JournalUnavailable, match=r"127\.0\.0\.1:9"):
        has_keys(NatsAddress.parse("nats://127.0.0.1:9/lab"))
