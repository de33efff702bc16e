"""Servers on one log for tests: what happens to them when the test says, and that they are equal afterwards."""

import signal
from collections.abc import Iterator
from contextlib import closing

import httpx
import pytest

from tests.running import eventually
from twincast.client import Rest
from twincast.testing import Cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two servers, whole again after each test."""
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def two(cluster: Cluster) -> Iterator[Cluster]:
    yield cluster
    cluster.wait_until_equal()


def publish(cluster: Cluster, i: int, *values: int) -> None:
    with closing(Rest(cluster.url(i))) as rest:
        for value in values:
            rest.publish("lamp", value)


def values(cluster: Cluster, i: int) -> list[int]:
    return [event["value"] for event in cluster.log(i)]


def answers(cluster: Cluster, i: int) -> bool:
    try:
        return bool(httpx.get(f"{cluster.url(i)}/api/status", timeout=0.5).json()["ok"])
    except (httpx.HTTPError, ValueError):
        return False


def test_what_one_server_stores_all_have_in_the_same_order(two: Cluster) -> None:
    before = two.wait_until_equal()
    publish(two, 0, 1, 2)
    publish(two, 1, 3)
    assert two.wait_until_equal() == before + 3
    assert two.log(0) == two.log(1)
    assert values(two, 0)[before:] == [1, 2, 3]
    assert two.status(0)["epoch"] == two.status(1)["epoch"]


def test_a_server_that_was_killed_catches_up_at_the_same_address(two: Cluster) -> None:
    url = two.url(1)
    two.kill(1)
    assert not answers(two, 1)
    publish(two, 0, 4)
    two.start(1)
    assert two.url(1) == url
    two.wait_until_equal()
    assert values(two, 1)[-1] == 4


def test_a_server_that_is_stopped_ends_in_order(two: Cluster) -> None:
    assert two.stop(1) in {0, -signal.SIGTERM}
    two.start(1)


def test_a_paused_server_says_nothing_and_catches_up_when_it_is_resumed(two: Cluster) -> None:
    two.pause(1)
    assert not answers(two, 1)
    publish(two, 0, 5)
    two.resume(1)
    two.wait_until_equal()
    assert values(two, 1)[-1] == 5


def test_a_server_that_is_cut_off_from_nats_says_so_and_still_reads(two: Cluster) -> None:
    two.cut(1)
    publish(two, 0, 6)
    eventually(lambda: two.status(1)["ok"] is False, "it says that it is cut off")
    assert values(two, 1)[-1] != 6
    two.heal(1)
    two.wait_until_equal()
    assert values(two, 1)[-1] == 6


def test_a_slow_way_to_nats_delays_and_loses_nothing(two: Cluster) -> None:
    two.slow(1, 0.2)
    publish(two, 1, 7)
    two.slow(1, 0)
    two.wait_until_equal()
    assert values(two, 0)[-1] == 7


def test_servers_that_are_not_equal_are_told(two: Cluster) -> None:
    two.pause(1)
    try:
        with pytest.raises(AssertionError, match=r"not become equal in 0.1 s; they say .*'ok': True.*\{\}"):
            two.wait_until_equal(deadline_s=0.1)
    finally:
        two.resume(1)


def test_a_copy_can_be_deleted(two: Cluster) -> None:
    two.stop(1)
    two.copy(1).unlink()
    two.start(1)
    two.wait_until_equal()
    assert two.log(0) == two.log(1)


def test_settings_are_those_of_all_servers() -> None:
    with Cluster(servers=1, root_path="/twin", allow_origin=("https://app.example",)) as cluster:
        answer = httpx.get(f"{cluster.url()}/api/status", headers={"Origin": "https://app.example"})
        assert answer.headers["access-control-allow-origin"] == "https://app.example"


def test_a_server_that_does_not_start_says_what_it_printed() -> None:
    with pytest.raises(AssertionError, match=r"did not start; it printed:(.|\n)*OUTBOX_MAX_BYTES"):
        Cluster(servers=1, outbox_max_bytes="many")
