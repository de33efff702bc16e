"""The JavaScript client's way to a server: what ends it, what it comes back from, and when. The table is shared."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.client.node_client import NodeClient, hello

RULES = json.loads(Path(__file__).with_name("link_rules.json").read_text())
SHOWN_AS_STATUS = [row for row in RULES["ends"] if "status" in row]
TOKENS = [row for row in RULES["ends"] if "token_raises" in row or "token_gives" in row]
CLOSES = [row for row in RULES["ends"] if "close" in row]
FAILURES = [row for row in RULES["ends"] if row.get("failure") not in {None, "silent", "silent_hello"}]
SILENCES = [row for row in RULES["ends"] if row.get("failure") in {"silent", "silent_hello"}]


@pytest.fixture
def wrongs() -> set[str]:
    """Callbacks that raise are among what is tried here."""
    return {"unhandled"}


def name_of(row: dict[str, Any]) -> str:
    return " ".join(str(part) for key, part in row.items() if key in {"what", "close", "status", "token", "code"})


def start(client: NodeClient, row: dict[str, Any]) -> None:
    """Begin as a row says, with one failed attempt behind it, so that the next wait tells whether the delay grows."""
    kind = row.get("token")
    options = {"token": "twc_key"} if kind == "fixed" else {}
    tokens = [{"gives": "twc_key"}] if kind == "function" else None
    client.make(options=options, tokens=tokens, throwing=["onLink"] if row.get("on_link_raises") else [])
    client.do("end")
    client.do("advance", ms=500)


def live(client: NodeClient, row: dict[str, Any]) -> None:
    client.accept(*row.get("first", [hello()]))
    for _ in range(int(row.get("held_s", 0) * 10)):  # a live connection is one that answers
        client.do("advance", ms=100)
        client.say({"type": "pong", "timestamp_utc": ""})


def check(client: NodeClient, row: dict[str, Any]) -> None:
    if row["outcome"] == "final":
        assert client.phase == "refused"
        client.events = []
        client.do("call", method="publish", args=["a", 1], name="late")
        [settled] = [event for event in client.events if "settled" in event]
        assert settled["code"] == (row["error"] or settled["code"]) and settled["code"]
    else:
        assert client.phase == "waiting"
        assert client.wait_s == {"grows": 1.0, "anew": 0.5}[row["delay"]]


@pytest.mark.parametrize("row", CLOSES, ids=name_of)
def test_only_the_servers_clear_no_is_final(client: NodeClient, row: dict[str, Any]) -> None:
    start(client, row)
    live(client, row)
    if row["close"] is not None and client.phase in {"live", "connecting"}:
        client.do("end", code=row["close"])
    check(client, row)


@pytest.mark.parametrize("row", FAILURES, ids=lambda row: row["failure"])
def test_a_network_that_fails_is_tried_again(client: NodeClient, row: dict[str, Any]) -> None:
    start(client, row)
    client.do("end")  # all that a page is told of any of them
    check(client, row)


def test_a_runtime_that_tells_a_failed_connection_by_an_error_alone_is_not_waited_for(client: NodeClient) -> None:
    client.make()
    client.do("end", isTold=False)
    assert client.phase == "waiting"


def test_a_handshake_that_the_server_refuses_in_its_own_words_is_final_and_settles_all(
    client: NodeClient,
) -> None:
    client.make()
    client.do("call", method="publish", args=["a", 1], name="waiting")
    client.do("answer", status=403, problem={"code": "forbidden", "detail": "the Host is not ours"})
    client.do("end")
    assert (client.phase, client.state["link"]["reason"]) == ("refused", "the Host is not ours")
    assert [event["code"] for event in client.events if "settled" in event] == ["forbidden"]
    assert client.take("asked") == ["http://twincast.test/api/status"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, "nobody answers at http://twincast.test"),
        ({"status": 200}, "the server is up, but the WebSocket does not open (a proxy between?)"),
        ({"status": 401, "problem": {"code": "unauthenticated", "detail": "a key"}}, "a key"),
        ({"status": 502, "problem": {}}, "the server answers 502"),
    ],
)
def test_a_handshake_that_fails_is_explained_and_tried_again(client: NodeClient, answer: Any, reason: str) -> None:
    client.make()
    if answer:
        client.do("answer", **answer)
    client.do("end")
    assert (client.phase, client.state["link"]["reason"]) == ("waiting", reason)
    client.dial_again()
    client.accept(hello())
    assert client.phase == "live"


def test_a_rejection_by_a_client_that_has_ended_ends_no_process(client: NodeClient) -> None:
    client.make()
    client.accept({"type": "auth_required", "message": ""})
    for method, args in (("publish", ["a", 1]), ("delete", ["a"]), ("subscribe", [{"devices": ["a"]}])):
        client.do("call", method=method, args=args, isWatched=False)
        client.do("call", method=method, args=args, name=method)
    assert client.phase == "refused"
    assert {event["code"] for event in client.events if "settled" in event} == {"unauthenticated"}


@pytest.mark.parametrize("row", SILENCES, ids=lambda row: row["failure"])
def test_silence_is_given_up_and_tried_again(client: NodeClient, row: dict[str, Any]) -> None:
    start(client, row)
    if row["failure"] == "silent_hello":
        client.accept()
    client.do("advance", ms=10_000)
    check(client, row)


@pytest.mark.parametrize("row", SHOWN_AS_STATUS, ids=name_of)
def test_a_status_is_judged_like_a_close_code(client: NodeClient, row: dict[str, Any]) -> None:
    end = {"httpStatus": row["status"], "code": row["code"], "isRenewed": row.get("token") == "function"}
    verdict = client.do("evaluate", text=f"m.isFinal({json.dumps(end)})")
    assert verdict["value"] is (row["outcome"] == "final")


@pytest.mark.parametrize("row", TOKENS, ids=name_of)
@pytest.mark.parametrize("how", ["at once", "later"])
def test_a_function_that_gets_no_credential_once_is_asked_again(
    client: NodeClient, row: dict[str, Any], how: str
) -> None:
    bad = {"raises": how} if "token_raises" in row else {"gives": row["token_gives"]}
    client.make(tokens=[{"gives": "twc_key"}, bad, {"gives": "twc_key"}])
    client.accept(hello())
    client.do("end")
    client.do("advance", ms=500)
    check(client, row)
    client.do("advance", ms=1_000)
    client.accept(hello())
    assert client.phase == "live"


def test_a_function_that_never_answers_is_given_up_and_asked_again(client: NodeClient) -> None:
    client.make(tokens=[{"never": True}, {"gives": "twc_key"}])
    client.do("advance", ms=30_000)
    assert client.phase == "waiting"
    client.do("advance", ms=500)
    client.accept(hello())
    assert client.phase == "live"


def test_a_credential_is_there_before_the_server_begins_to_wait_for_it_and_its_line_end_is_not_sent(
    client: NodeClient,
) -> None:
    client.make(tokens=[{"gives": "twc_key\r\n"}])
    client.accept({"type": "auth_required", "message": ""})
    assert client.take("sent") == ['{"type":"auth","token":"twc_key"}']


@pytest.mark.parametrize("row", RULES["backoff"]["rows"], ids=lambda row: row["what"])
def test_the_wait_doubles_up_to_a_bound_and_begins_anew_only_behind_a_connection_that_held(
    client: NodeClient, row: dict[str, Any]
) -> None:
    bounds_s = []
    client.make()
    for held_s in row["held_s"]:
        if held_s is not None:
            client.accept(hello())
            for _ in range(int(min(held_s, 60) * 10)):
                client.do("advance", ms=100)
                client.say({"type": "pong", "timestamp_utc": ""})
        client.do("end")
        bounds_s.append(client.wait_s)
        client.do("advance", ms=bounds_s[-1] * 1_000)
    assert bounds_s == row["bounds_s"]


def test_the_wait_is_a_random_part_of_its_bound(client: NodeClient) -> None:
    for chance in (0.01, 0.25, 1):
        client.make()
        client.do("chance", value=chance)
        client.do("end")
        assert client.wait_s == 0.5 * chance


@pytest.mark.parametrize("name", ["onLink", "onSnapshot", "onMessages", "schedule", "explain"])
@pytest.mark.parametrize("how", ["throwing", "rejecting"])
def test_what_a_callback_raises_is_reported_and_ends_nothing(client: NodeClient, name: str, how: str) -> None:
    if (name, how) == ("schedule", "rejecting"):
        pytest.skip("what it gives back is not looked at")
    client.make(**{how: [name]})
    client.do("end")  # `explain` is asked
    client.do("advance", ms=500)
    client.accept(hello(), {"type": "control", "target": "t", "command": "c", "args": {}, "seq": 1})
    client.do("end")
    client.do("advance", ms=1_000)
    client.accept(hello(1, resumed=True))
    client.do("call", method="drain")
    assert client.phase == "live"
    assert f"{name} failed" in client.take("reported")


def test_a_client_that_is_closed_from_its_own_callback_stays_closed(client: NodeClient) -> None:
    for phase in ("connecting", "live", "waiting"):
        client.make()
        client.do("call", method="close")
        client.do("evaluate", text=f"client.onLink = ({{ phase }}) => phase === '{phase}' && client.close()")
        client.do("call", method="open")
        if phase != "connecting":
            client.accept(hello())
        if phase == "waiting":
            client.do("end")
        assert (client.phase, client.timers) == ("closed", 0)


def test_an_address_that_cannot_be_one_is_refused_at_once(client: NodeClient) -> None:
    client.make()
    for url in ("nonsense", "ftp://host/ws"):
        answer = client.do("evaluate", text=f"new m.Client({{ url: {json.dumps(url)} }})")
        assert answer["code"] in {"TypeError", "ERR_INVALID_URL"}
    client.make(options={"url": "https://host/ws#part"})
    assert client.take("dialed") == ["wss://host/ws?ordered=1"]
