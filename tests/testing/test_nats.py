"""NATS for tests: one node and three, and what happens to them when the test says."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from tests.running import eventually
from twincast.cluster.engine import Engine
from twincast.cluster.knock import NoAnswer, ask
from twincast.errors import JournalUnusable
from twincast.testing import Nats

LOG = "lab"


@pytest.fixture(scope="module")
def three() -> Iterator[Nats]:
    """Three nodes with a stream of three replicas, whole again after each test."""
    with Nats(3) as nats:
        made = nats.ports[0]
        eventually(lambda: made_stream(made, replicas=3), "the stream is made")
        yield nats


def made_stream(port: int, *, replicas: int) -> bool:
    config = {"name": f"twincast_{LOG}", "subjects": [f"twincast.{LOG}.log"], "num_replicas": replicas}
    with suppress(NoAnswer):
        return bool(ask(port, None, f"STREAM.CREATE.twincast_{LOG}", config, timeout_s=5))
    return False


def answers(nats: Nats, i: int, timeout_s: float = 0.3) -> bool:
    try:
        ask(nats.ports[i], None, f"STREAM.INFO.twincast_{LOG}", timeout_s=timeout_s)
    except NoAnswer:
        return False
    return True


def info(nats: Nats, i: int) -> dict[str, Any]:
    """What a node says of the stream, asked past the network."""
    return ask(nats.engines[i].port, None, f"STREAM.INFO.twincast_{LOG}", timeout_s=5)


@pytest.fixture
def nats(twincast_nats: Nats) -> Nats:
    assert made_stream(twincast_nats.ports[0], replicas=1)
    return twincast_nats


def test_a_url_names_all_nodes_and_what_is_asked_for(nats: Nats, three: Nats) -> None:
    assert nats.url("lab") == f"nats://127.0.0.1:{nats.ports[0]}/lab"
    assert nats.url("lab", copy="/tmp/a b.db", as_="one").endswith("/lab?copy=/tmp/a+b.db&as=one")
    assert len(three.url("lab").split(",")) == 3


def test_a_node_that_was_killed_comes_back_with_its_streams_at_the_same_address(nats: Nats) -> None:
    url = nats.url(LOG)
    nats.kill(0)
    assert nats.leader(LOG) is None
    assert not answers(nats, 0)
    nats.start(0)
    assert nats.url(LOG) == url
    assert answers(nats, 0)
    assert nats.leader(LOG) == 0


def test_a_paused_node_says_nothing_until_it_is_resumed(nats: Nats) -> None:
    nats.pause(0)
    assert not answers(nats, 0)
    assert nats.leader(LOG) is None
    nats.resume(0)
    assert answers(nats, 0)


def test_a_paused_node_can_be_stopped_in_order(nats: Nats) -> None:
    nats.pause(0)
    nats.stop(0)
    assert nats.engines[0].wait() == 0


def test_a_node_that_is_cut_off_runs_and_reaches_nobody(nats: Nats) -> None:
    nats.cut(0)
    assert not answers(nats, 0)
    assert info(nats, 0)["config"]["name"] == "twincast_lab"
    nats.heal(0)
    assert answers(nats, 0)


def test_a_slow_node_takes_its_time_both_ways(nats: Nats) -> None:
    nats.slow(0, 0.3)
    assert not answers(nats, 0, timeout_s=0.2)
    assert answers(nats, 0, timeout_s=5)
    nats.slow(0, 0)
    assert answers(nats, 0)


def test_a_deleted_stream_is_gone_and_one_that_is_not_there_cannot_be_deleted(nats: Nats) -> None:
    nats.delete_stream(LOG)
    assert nats.leader(LOG) is None
    with pytest.raises(RuntimeError, match="does not delete the stream of lab"):
        nats.delete_stream(LOG)


def test_a_backup_brings_back_what_there_was(nats: Nats) -> None:
    created = info(nats, 0)["created"]
    backup = nats.backup()
    nats.delete_stream(LOG)
    nats.restore(backup)
    assert info(nats, 0)["created"] == created
    assert nats.last_seq(LOG) == 0


def test_the_nodes_end_with_the_context() -> None:
    with Nats() as nats:
        engine: Engine = nats.engines[0]
        folder = engine.folder
    assert not engine.is_running
    assert not folder.exists()


def test_a_node_that_does_not_start_takes_the_others_with_it() -> None:
    with pytest.raises(JournalUnusable, match="NATS ended at its start"):
        Nats(sync="often")


@pytest.mark.parametrize(("fault", "mend"), [("stop", "start"), ("pause", "resume"), ("cut", "heal")])
def test_another_node_leads_when_the_leader_is_away(three: Nats, fault: str, mend: str) -> None:
    leader = leader_of(three)
    getattr(three, fault)(leader)
    eventually(lambda: three.leader(LOG) not in {leader, None}, "another node leads")
    getattr(three, mend)(leader)
    three.wait_until_ready()
    eventually(lambda: all(replica["current"] for replica in replicas(three)), "all replicas are current")


def leader_of(nats: Nats) -> int:
    """Wait until the stream has a leader."""
    found: list[int] = []

    def look() -> list[int]:
        if (leader := nats.leader(LOG)) is not None:
            found.append(leader)
        return found

    return eventually(look, "the stream has a leader")[0]


def replicas(nats: Nats) -> list[dict[str, Any]]:
    leader = nats.leader(LOG)
    return [{"current": False}] if leader is None else list(info(nats, leader)["cluster"]["replicas"])


def test_a_node_that_is_cut_off_is_cut_off_from_its_peers(three: Nats) -> None:
    """Or the leader, cut off from clients, would go on leading."""
    leader = leader_of(three)
    other = (leader + 1) % 3
    three.cut(other)
    eventually(lambda: not all(replica["current"] for replica in replicas(three)), "a replica is behind")
    three.heal(other)
    eventually(lambda: all(replica["current"] for replica in replicas(three)), "all replicas are current")
