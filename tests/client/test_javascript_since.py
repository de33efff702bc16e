"""A JavaScript client that goes on where another one left off, as a page does that is loaded anew."""

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.client.node_client import NodeClient, hello

EPOCH, LATER = "aaaaaaaa-00000001", "aaaaaaaa-00000002"


def twin(value: Any, seq: int) -> dict[str, Any]:
    return {"value": value, "updated_at_utc": "", "source": "rest", "seq": seq}


def reading(device: str, value: Any, seq: int, epoch: str = EPOCH) -> dict[str, Any]:
    return {"type": "data_update", "device_id": device, "value": value, "seq": seq, "epoch": epoch}


def asked_since(client: NodeClient) -> list[str]:
    return [parse_qs(urlsplit(url).query).get("since", [""])[0] for url in client.take("dialed")]


@pytest.mark.parametrize("since", [f"{EPOCH}:3", {"epoch": EPOCH, "seq": 3}])
def test_it_asks_for_the_state_and_then_for_what_came_since(client: NodeClient, since: Any) -> None:
    client.make(options={"since": since})
    assert client.state["position"] == {"epoch": EPOCH, "seq": 3}
    client.accept(hello(5, data_snapshot={"a": twin(2, 5)}))
    assert asked_since(client) == ["", f"{EPOCH}:3"]
    assert client.phase == "connecting"
    client.accept(hello(3, resumed=True))
    [snapshot] = client.take("snapshot")
    assert snapshot == {"epoch": EPOCH, "seq": 3, "twins": {"a": twin(2, 5)}, "gap": None}
    order = {"type": "control", "target": "t", "command": "c", "args": {}, "seq": 4, "epoch": EPOCH}
    client.say(reading("gone", 1, 3), order)
    assert client.state["twins"] == {"a": twin(2, 5)}, "the state is newer"
    assert client.state["position"]["seq"] == 4
    client.say(reading("a", 2, 5), reading("a", 3, 6))
    assert client.state["twins"]["a"]["value"] == 3
    told = [message["seq"] for messages in client.take("messages") for message in messages]
    assert told == [3, 4, 5, 6]


def test_what_is_told_comes_with_the_position_to_keep(client: NodeClient) -> None:
    client.make()
    client.do(
        "evaluate", text="client.onMessages = (messages, at) => { globalThis.kept = { at, all: messages.length }; }"
    )
    client.accept(hello(1))
    client.say(reading("a", 1, 2), reading("a", 2, 3))
    kept = client.do("evaluate", text="globalThis.kept")["value"]
    assert kept == {"at": {"epoch": EPOCH, "seq": 3}, "all": 2}


@pytest.mark.parametrize(
    "since", ["", "torn", "x:", ":5", "x:-1", "x:1.5", {"epoch": "x"}, {"seq": 1}, 5, "x" * 200 + ":1"]
)
def test_a_position_that_is_none_means_from_now_on_with_a_gap(client: NodeClient, since: Any) -> None:
    client.make(options={"since": since})
    assert asked_since(client) == [""]
    client.accept(hello(7, data_snapshot={"a": twin(1, 7)}))
    [snapshot] = client.take("snapshot")
    assert (snapshot["seq"], snapshot["gap"]) == (7, {"from": 1, "to": 7, "reason": "unreadable"})
    client.do("end")
    client.dial_again()
    assert asked_since(client) == [f"{EPOCH}:7"]


def test_no_position_is_no_gap(client: NodeClient) -> None:
    client.make(options={"since": None})
    client.accept(hello(7))
    assert client.take("snapshot")[0]["gap"] is None


@pytest.mark.parametrize(
    ("reason", "gap"),
    [
        ("too_old", {"from": 4, "to": 9, "reason": "too_old"}),
        ("epoch", {"from": 1, "to": 9, "reason": "epoch"}),
        ("ahead", {"from": 1, "to": 9, "reason": "ahead"}),
    ],
)
def test_a_position_that_the_server_cannot_go_on_from_is_a_gap_with_its_reason(
    client: NodeClient, reason: str, gap: dict[str, Any]
) -> None:
    client.make(options={"since": f"{EPOCH}:3"})
    client.accept(hello(8, data_snapshot={"a": twin(1, 8)}))
    client.accept(hello(9, data_snapshot={"a": twin(2, 9)}, reason=reason))
    [snapshot] = client.take("snapshot")
    assert (snapshot["seq"], snapshot["gap"], snapshot["twins"]) == (9, gap, {"a": twin(2, 9)})
    client.say(reading("a", 3, 10))
    assert client.state["twins"]["a"]["value"] == 3


def test_a_cut_between_the_state_and_what_came_since_loses_nothing(client: NodeClient) -> None:
    client.make(options={"since": f"{EPOCH}:3"})
    client.do("end")
    client.dial_again()
    client.accept(hello(5, data_snapshot={"a": twin(2, 5)}))
    client.do("end")
    client.dial_again()
    client.accept(hello(3, resumed=True))
    client.say(reading("a", 1, 4))
    assert client.state["twins"]["a"]["value"] == 2
    client.do("end")
    client.dial_again()
    assert asked_since(client)[-1] == f"{EPOCH}:4"
    client.accept(hello(4, resumed=True))
    client.say(reading("a", 2, 5), reading("a", 3, 6))
    assert client.state["twins"]["a"]["value"] == 3


def test_a_state_of_another_run_is_asked_for_again(client: NodeClient) -> None:
    """The log may have been set back between the two: then its numbers are of other changes than the state has."""
    client.make(options={"since": f"{EPOCH}:3"})
    client.accept(hello(9, data_snapshot={"a": twin(2, 9)}))
    client.accept(hello(3, resumed=True, epoch=LATER))
    assert client.phase == "waiting"
    client.dial_again()
    client.accept(hello(5, data_snapshot={"a": twin(1, 5)}, epoch=LATER))
    client.accept(hello(3, resumed=True, epoch=LATER))
    client.say(reading("a", 1, 4, LATER), reading("a", 1, 5, LATER), reading("a", 7, 6, LATER))
    assert client.state["twins"]["a"]["value"] == 7
    client.do("end")
    client.dial_again()
    client.accept(hello(6, resumed=True, epoch="aaaaaaaa-00000003"))
    assert client.phase == "live", "what was asked for ahead is behind it"


def test_a_login_that_comes_later_goes_on_from_the_same_position(client: NodeClient) -> None:
    client.make(options={"since": f"{EPOCH}:3"})
    client.accept({"type": "auth_required", "message": ""})
    assert client.phase == "refused"
    client.do("call", method="logIn", args=["twc_key"])
    client.accept(hello(5))
    client.accept(hello(3, resumed=True))
    assert client.phase == "live"
    assert asked_since(client)[-1] == f"{EPOCH}:3"
    client.do("call", method="logIn", args=["twc_other"])
    assert asked_since(client) == [""], "somebody else begins anew"
