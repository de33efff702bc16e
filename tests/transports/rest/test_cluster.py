"""`/api/cluster`, and what the status and the metrics say of several servers."""

import io
from typing import Any, BinaryIO

import httpx
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from twincast.core.peers import Heartbeat, Member
from twincast.testing import Server
from twincast.transports.rest.cluster import Cluster

NAMES = {"a": "2026-11-27T03:00:00+00:00", "b": "2026-11-27T04:00:00+00:00"}


class TwoServers:
    """The server that answers, `b`, and an older one that is ahead of it."""

    own_id = "b"
    others_stay = True
    problem = ""
    as_of_utc: str | None = None

    def members(self) -> list[Member]:
        return [
            Member(Heartbeat(id="a", name="one", since_utc=NAMES["a"], seq=30, stream_seq=9, clients=4), 1.0),
            Member(
                Heartbeat(
                    id="b", name="two", since_utc=NAMES["b"], seq=10, stream_seq=5, stored_stream_seq=3, settings="mine"
                ),
                2.5,
            ),
        ]

    def clients_elsewhere(self) -> int:
        return 4

    def heard_s_ago(self, member: Member) -> float:
        return 2.5 - member.heard_s

    async def leave(self) -> None: ...

    async def copied(self) -> BinaryIO:
        return io.BytesIO()

    def behind_s(self, seq: int) -> float:
        return 0.0 if seq == 30 else 2.0


def get(server: Server, path: str) -> Any:
    return httpx.get(server.url + path).raise_for_status().json()


def test_a_server_with_a_log_of_its_own_is_the_only_one_of_its_list() -> None:
    with Server() as server:
        told = httpx.get(f"{server.url}/api/cluster").raise_for_status()
        cluster = msgspec.json.decode(told.content, type=Cluster)
        assert (cluster.shared, cluster.answered_by, len(cluster.servers)) == (False, "alone", 1)
        own, status = cluster.servers[0], get(server, "/api/status")
        assert own.ready and not own.leaving and own.epoch == status["epoch"]
        assert status["websocket_clients_here"] == 0
        assert not {"servers", "as_of_utc"} & status.keys()
        assert "twincast_servers" not in httpx.get(f"{server.url}/metrics").text


def test_the_servers_of_a_shared_log_are_told_with_how_far_each_is() -> None:
    with Server() as server:
        server._app.parts.servers = TwoServers()
        told = get(server, "/api/cluster")
        assert (told["shared"], told["answered_by"]) == (True, "b")
        one, two = told["servers"]
        assert (one["name"], one["behind_entries"], one["behind_messages"], one["behind_s"]) == ("one", 0, 0, 0.0)
        assert (two["name"], two["behind_entries"], two["behind_messages"], two["behind_s"]) == ("two", 20, 4, 2.0)
        assert (one["heard_s_ago"], two["unstored_messages"]) == (1.5, 2)
        assert [each["same_settings"] for each in told["servers"]] == [False, True]
        assert "problem" not in told


def test_the_status_counts_the_clients_of_all_servers_and_says_what_is_wrong_between_them() -> None:
    with Server() as server:
        server._app.parts.servers = servers = TwoServers()
        status = get(server, "/api/status")
        assert (status["ok"], status["servers"]) == (True, 2)
        assert (status["websocket_clients_connected"], status["websocket_clients_here"]) == (4, 0)
        assert "as_of_utc" not in status
        servers.problem, servers.as_of_utc = "two and one differ", NAMES["a"]
        status = get(server, "/api/status")
        assert (status["ok"], status["problem"], status["as_of_utc"]) == (False, "two and one differ", NAMES["a"])
        assert get(server, "/api/cluster")["problem"] == "two and one differ"
        assert httpx.get(f"{server.url}/readyz").status_code == 200, "what it accepts is stored"


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("twincast_servers", 2),
        ("twincast_behind_entries", 20),
        ("twincast_behind_messages", 4),
        ("twincast_behind_seconds", 2),
        ("twincast_copy_behind_messages", 2),
    ],
)
def test_the_metrics_say_how_far_a_server_is_behind(name: str, number: float) -> None:
    with Server() as server:
        server._app.parts.servers = TwoServers()
        text = httpx.get(f"{server.url}/metrics").text
        found = [
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name
        ]
        assert found == [number]
