"""What the JavaScript client sends: values said exactly or not at all, limits, refusals, and its order."""

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.client.node_client import NodeClient, hello


def publish(client: NodeClient, *names: str, value: Any = 1) -> None:
    for name in names:
        client.do("call", method="publish", args=[name, value], name=name)


def sent(client: NodeClient) -> list[dict[str, Any]]:
    """Return the messages that were sent since the last time, heartbeats aside."""
    messages = [json.loads(event["sent"]) for event in client.events if "sent" in event]
    client.events = [event for event in client.events if "sent" not in event]
    return [message for message in messages if message["type"] != "ping"]


def names(messages: list[dict[str, Any]]) -> list[str]:
    return [message.get("device_id", message["type"]) for message in messages]


def settled(client: NodeClient) -> dict[str, str]:
    return {event["settled"]: event.get("code", "stored") for event in client.events if "settled" in event}


def acks(*messages: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"type": "ack", "id": message["id"], "epoch": "e", "seq": seq} for seq, message in enumerate(messages, 1)]


def refusal(message: dict[str, Any], code: str, *, retryable: bool) -> dict[str, Any]:
    return {"type": "error", "id": message["id"], "code": code, "message": "no", "retryable": retryable}


def come_back(client: NodeClient, **how: Any) -> None:
    client.dial_again()
    client.accept(hello(**how))


# Values


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("[null, true, 1.5, -0, 'é', {}]", '[null,true,1.5,0,"é",{}]'),
        ("{a: undefined, b: 1}", '{"b":1}'),
        ("12345678901234567n", "12345678901234567"),
        ("1e20", "1e+20"),
        ("2 ** 53", "9007199254740992"),
        ("new Date(0)", '"1970-01-01T00:00:00.000Z"'),
        ("{at: {toJSON: () => ({x: 1n})}}", '{"at":{"x":1}}'),
        ("new (class { celsius = 20 })()", '{"celsius":20}'),
        ("Object.create(null)", "{}"),
        ("JSON.parse('{\"__proto__\": 1}')", '{"__proto__":1}'),
        (
            "Array(32).fill().reduce((inner) => [inner], new Date(0))",
            "[" * 32 + '"1970-01-01T00:00:00.000Z"' + "]" * 32,
        ),
    ],
)
def test_a_value_is_said_exactly(client: NodeClient, value: str, text: str) -> None:
    assert client.do("evaluate", text=f"m.encode({value})") == {"value": text}


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ("NaN", "NaN"),
        ("{air: [1, {celsius: -Infinity}]}", "-Infinity (at .air[1].celsius)"),
        ("undefined", "undefined"),
        ("[undefined]", "undefined (at [0])"),
        ("[, 1]", "undefined (at [0])"),
        ("() => 1", "a function"),
        ("{on: Symbol('x')}", "a symbol (at .on)"),
        ("new Map([[1, 2]])", "a Map"),
        ("{all: new Set([1])}", "a Set (at .all)"),
        ("new Uint8Array(3)", "a Uint8Array"),
        ("new ArrayBuffer(3)", "a ArrayBuffer"),
        ("Promise.resolve(1)", "a Promise"),
        ("/x/", "a RegExp"),
        ("new Error('x')", "a Error"),
        ("new Number(1)", "a Number"),
        ("new Date(NaN)", "an invalid date"),
        (r"'\ud800'", "a text with a lone surrogate"),
        (r"{'\udfff': 1}", "a text with a lone surrogate"),
        ("{toJSON: () => NaN}", "NaN"),
        ("{toJSON: () => [new Map()]}", "a Map (at [0])"),
    ],
)
@pytest.mark.parametrize("where", ["publish('d', {})", "control('t', 'c', {{args: [{}]}})"])
def test_what_json_lacks_is_refused_before_it_is_sent(client: NodeClient, value: str, place: str, where: str) -> None:
    client.make()
    client.accept(hello())
    text = f"client.{where.format(value)}.catch((error) => error.code + ': ' + error.message)"
    said = client.do("evaluate", text=text)["value"]
    what, _, at = place.partition(" (at ")
    assert said.startswith(f"validation_failed: JSON has no way to say {what}")
    assert at.rstrip(")") in said
    assert sent(client) == []


@pytest.mark.parametrize(
    "value", ["(() => { const a = {}; a.a = a; return a; })()", "Array(33).fill().reduce((inner) => [inner], 1)"]
)
def test_a_circle_is_nested_too_deep(client: NodeClient, value: str) -> None:
    assert client.do("evaluate", text=f"m.encode({value})")["code"] == "too_large"


@pytest.mark.parametrize(
    ("at", "text"),
    [
        ("new Date(1764216970250)", "2025-11-27T04:16:10.250Z"),
        ("'2026-11-27T04:16:10Z'", "2026-11-27T04:16:10Z"),
        ("'2026-11-27 05:16:60.123456789+01:00'", "2026-11-27 05:16:60.123456789+01:00"),
        ("undefined", None),
        ("null", None),
    ],
)
def test_a_reading_says_when_it_was_measured(client: NodeClient, at: str, text: str | None) -> None:
    client.make()
    client.accept(hello())
    client.do("evaluate", text=f"void client.publish('a', 1, {{measuredAt: {at}}}).catch(() => 0)")
    [message] = sent(client)
    assert message.get("measured_at_utc") == text


@pytest.mark.parametrize(
    ("at", "words"),
    [
        ("new Date(NaN)", "not this Date"),
        ("new Date(9e14)", "not this Date"),
        ("'2026-11-27T04:16:10'", 'with its zone; not "2026-11-27T04:16:10"'),
        ("'today'", 'not "today"'),
        ("''", 'not ""'),
        ("1764216970", "not 1764216970"),
        ("Symbol('x')", "not a symbol"),
    ],
)
def test_a_time_without_a_zone_is_refused_before_it_is_sent(client: NodeClient, at: str, words: str) -> None:
    client.make()
    client.accept(hello())
    text = f"client.publish('a', 1, {{measuredAt: {at}}}).catch((error) => error.code + ': ' + error.message)"
    said = client.do("evaluate", text=text)["value"]
    assert said.startswith("bad_time: measuredAt must be") and words in said
    assert sent(client) == []


def test_a_name_that_is_no_text_with_a_form_is_refused(client: NodeClient) -> None:
    client.make()
    client.accept(hello())
    for name in (r"'\ud800'", "undefined", "NaN"):
        text = f"client.publish({name}, 1).catch((error) => error.code)"
        assert client.do("evaluate", text=text) == {"value": "validation_failed"}
    assert client.do("evaluate", text="client.send('\"\\ud800\"').catch((error) => error.code)")["value"]
    assert sent(client) == []


# Limits


def test_one_updates_refusal_is_its_own_alone(client: NodeClient) -> None:
    client.make()
    client.accept(hello())
    publish(client, "before")
    publish(client, "large", value="x" * 66_000)
    publish(client, "behind")
    assert names(sent(client)) == ["before", "behind"]
    assert settled(client) == {"large": "too_large"}
    assert client.phase == "live"


@pytest.mark.parametrize("method", ["publish", "control", "send", "subscribe", "unsubscribe"])
def test_limits_are_of_bytes_and_for_all_that_is_sent(client: NodeClient, method: str) -> None:
    client.make()
    client.accept(hello(limits={"message_max_bytes": 2_000, "value_max_bytes": 1_000}))
    for size, fits in ((300, True), (700, False)):
        text = "é" * size if method in {"publish", "control"} else "é" * (2 * size)
        args = {
            "publish": ["d", text],
            "control": ["t", "c", {"text": text}],
            "send": [json.dumps({"type": "hm", "x": text}, ensure_ascii=False)],
            "subscribe": [{"devices": [text]}],
            "unsubscribe": [[text]],
        }[method]
        client.do("call", method=method, args=args, name=method)
        assert (len(sent(client)) == 1) == fits
        if fits and method in {"subscribe", "unsubscribe"}:
            client.do("end")
            come_back(client, limits={"message_max_bytes": 2_000, "value_max_bytes": 1_000})
            client.say({"type": "ack", "id": sent(client)[-1]["id"], "epoch": "e", "seq": 0})
    assert settled(client)[method] == "too_large"
    assert client.phase == "live"


def test_a_limit_that_was_lowered_while_updates_wait_refuses_those_that_are_larger(client: NodeClient) -> None:
    client.make()
    publish(client, "unknown yet", value="x" * 66_000)
    client.accept(hello())
    assert settled(client) == {"unknown yet": "too_large"}
    publish(client, "a")
    publish(client, "large", value="x" * 50_000)
    publish(client, "b")
    client.do("end", code=1012)
    sent(client)
    come_back(client, limits={"message_max_bytes": 4_096, "value_max_bytes": 3_000}, resumed=True)
    assert names(sent(client)) == ["a", "b"]
    assert settled(client)["large"] == "too_large"


def test_what_is_too_large_for_a_proxy_is_refused_once_and_the_rest_goes_on(client: NodeClient) -> None:
    client.make()
    client.accept(hello())
    publish(client, "a", "b")
    publish(client, "large", value="x" * 40_000)
    publish(client, "c")
    client.do("end", code=1009)
    assert settled(client) == {"large": "too_large"}
    sent(client)
    come_back(client, resumed=True)
    again = sent(client)
    assert names(again) == ["a", "b", "c"]
    client.say(*acks(*again))
    assert set(settled(client).values()) == {"too_large", "stored"}


def test_a_request_may_be_the_one_that_is_too_large_for_a_proxy(client: NodeClient) -> None:
    client.make()
    client.accept(hello())
    publish(client, "a")
    client.do("call", method="send", args=[json.dumps({"type": "hm", "x": "x" * 9_000})], name="raw")
    client.do("end", code=1009)
    assert settled(client) == {"raw": "too_large"}
    sent(client)
    come_back(client, resumed=True)
    assert names(sent(client)) == ["a"]


def test_a_server_that_names_the_message_and_then_closes_has_refused_no_other(client: NodeClient) -> None:
    client.make()
    client.accept(hello(limits=None))
    publish(client, "a", "b")
    first, _ = sent(client)
    client.say(refusal(first, "too_large", retryable=False))
    client.do("end", code=1009)
    assert settled(client) == {"a": "too_large"}


@pytest.mark.parametrize("code", [1002, 1003, 1007])
def test_a_message_that_ends_each_connection_is_found_and_goes_no_more(client: NodeClient, code: int) -> None:
    client.make()
    client.accept(hello())
    publish(client, "a", "poison", "b", "c")
    stored: list[str] = []
    for _ in range(4):
        while "poison" not in names(messages := sent(client)) and messages:
            stored += names(messages)
            client.say(*acks(*messages))
        if not messages:
            break
        client.do("end", code=code)
        come_back(client, resumed=True)
    assert settled(client) == {"a": "stored", "poison": "bad_message", "b": "stored", "c": "stored"}
    assert stored == ["a", "b", "c"]


def test_a_large_subscription_goes_in_parts(client: NodeClient) -> None:
    client.make(options={"devices": []})
    client.accept(hello(limits={"message_max_bytes": 2_048, "value_max_bytes": 1_024}))
    patterns = [f"hall/{number:03}/{'é' * 20}" for number in range(100)]
    client.do("call", method="subscribe", args=[{"devices": patterns, "mode": "every"}], name="wish")
    asked: list[str] = []
    while message := next(iter(sent(client)), None):
        assert len(json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()) <= 2_048
        asked += message["devices"]
        client.say(*acks(message))
    assert (asked, settled(client)) == (patterns, {"wish": "stored"})


def test_a_text_alone_is_one_pattern_and_one_kind(client: NodeClient) -> None:
    client.make(options={"devices": "hall", "kinds": "late"})
    asked = parse_qs(urlsplit(client.take("dialed")[-1]).query)
    assert (asked["devices"], asked["kinds"]) == (["hall"], ["late"])
    client.accept(hello())
    for method, wish in (("subscribe", {"devices": "lab"}), ("unsubscribe", "hall")):
        client.do("call", method=method, args=[wish], name=method)
        [message] = sent(client)
        assert message["devices"] == [{"subscribe": "lab", "unsubscribe": "hall"}[method]]
        client.say(*acks(message))


def test_a_subscription_that_is_refused_is_not_remembered(client: NodeClient) -> None:
    client.make(options={"devices": ["a"]})
    client.accept(hello())
    client.do("call", method="subscribe", args=[{"devices": ["bad\\x"], "maxHz": 1}], name="wish")
    [asked] = sent(client)
    client.say(refusal(asked, "validation_failed", retryable=False))
    assert settled(client) == {"wish": "validation_failed"}
    client.do("end")
    client.dial_again()
    assert "bad" not in client.take("dialed")[-1]


def test_a_subscription_whose_answer_was_lost_is_asked_again(client: NodeClient) -> None:
    client.make(options={"devices": ["a"]})
    client.accept(hello())
    client.do("call", method="subscribe", args=[{"devices": ["b"]}], name="wish")
    twin = {"value": 1, "updated_at_utc": "", "source": "rest", "seq": 1}
    client.say({"type": "snapshot", "epoch": "aaaaaaaa-00000001", "seq": 3, "data_snapshot": {"b": twin}})
    assert "b" in client.state["twins"]
    client.do("end")
    sent(client)
    come_back(client, resumed=True)
    assert client.state["twins"] == {}, "its state may have changed meanwhile; it comes again"
    assert client.take("snapshot")[-1]["twins"] == {}
    client.do("end")
    client.dial_again()
    assert "devices=b" not in client.take("dialed")[-1]
    client.accept(hello(resumed=True))
    [asked] = sent(client)
    client.say(*acks(asked))
    client.do("end")
    client.dial_again()
    assert client.take("dialed")[-1].endswith("devices=a&devices=b")


def test_patterns_that_no_address_takes_are_selected_here_until_the_server_does(client: NodeClient) -> None:
    patterns = [f"hall/{number:03}/*" for number in range(400)]
    client.make(options={"devices": patterns})
    assert "devices=*" in client.take("dialed")[0].replace("%2A", "*")
    twin = {"value": 1, "updated_at_utc": "", "source": "rest", "seq": 1}
    client.accept(hello(2, data_snapshot={"hall/001/a": twin, "other": twin}))
    client.say({"type": "data_update", "device_id": "other", "value": 2, "seq": 3})
    assert set(client.state["twins"]) == {"hall/001/a"}
    assert client.state["position"]["seq"] == 3 or client.state["position"]["seq"] == 2
    asked = []
    while message := next(iter(sent(client)), None):
        asked.append((message["type"], message["devices"]))
        client.say(*acks(message))
    assert [pattern for kind, part in asked[:-1] for pattern in part if kind == "subscribe"] == patterns
    assert asked[-1] == ("unsubscribe", ["*"])


# Order


def test_what_was_refused_for_now_goes_again_in_order_and_before_what_is_newer(client: NodeClient) -> None:
    client.make()
    client.accept(hello())
    publish(client, *"abcd")
    a, b, c, d = sent(client)
    client.say(*acks(a), refusal(b, "journal_unavailable", retryable=True))
    publish(client, "e")
    assert sent(client) == [], "what is newer waits"
    client.say(refusal(c, "out_of_order", retryable=True), refusal(d, "out_of_order", retryable=True))
    client.do("advance", ms=600)
    [restart] = sent(client)
    assert restart["type"] == "restart"
    publish(client, "f")
    assert sent(client) == []
    client.say(*acks(restart))
    assert names(sent(client)) == ["b", "c", "d", "e", "f"]


def test_nothing_passes_a_deletion_that_is_not_answered(client: NodeClient) -> None:
    client.make()
    client.accept(hello())
    publish(client, "a")
    client.do("call", method="delete", args=["b"], name="gone")
    publish(client, "b")
    before = sent(client)
    assert [message["type"] for message in before] == ["telemetry", "delete"]
    client.do("end")
    client.dial_again()
    client.accept(hello(resumed=True))
    again = sent(client)
    assert again == before
    client.say(*acks(again[0]), refusal(again[1], "not_found", retryable=False))
    assert names(sent(client)) == ["b"]
    assert settled(client) == {"a": "stored", "gone": "not_found"}


def test_a_server_that_stays_unable_is_asked_less_and_less_often_by_chance(client: NodeClient) -> None:
    client.make()
    client.accept(hello())
    publish(client, "a")
    [update] = sent(client)
    waits_ms = []
    for _ in range(7):
        client.say(refusal(update, "journal_unavailable", retryable=True))
        waits_ms.append(0)
        while not (messages := sent(client)):
            client.do("advance", ms=100)
            client.say({"type": "pong", "timestamp_utc": ""})
            waits_ms[-1] += 100
        client.say(*acks(messages[0]))
        [update] = sent(client)
    assert waits_ms == [600, 1_100, 2_100, 4_100, 8_100, 15_100, 15_100]


def test_a_restart_whose_answer_was_lost_is_no_matter_on_the_next_connection(client: NodeClient) -> None:
    client.make()
    client.accept(hello())
    publish(client, "a", "b")
    a, _ = sent(client)
    client.say(refusal(a, "journal_unavailable", retryable=True))
    client.do("advance", ms=600)
    client.do("end")
    sent(client)
    come_back(client, resumed=True)
    assert names(sent(client)) == ["a", "b"]


def test_a_message_sent_by_hand_that_is_refused_for_now_holds_back_no_later_one_for_good(client: NodeClient) -> None:
    client.make()
    client.accept(hello())
    client.do("call", method="send", args=['{"type":"telemetry","device_id":"raw","value":1}'], name="raw")
    [raw] = sent(client)
    client.say(refusal(raw, "journal_unavailable", retryable=True))
    publish(client, "a")
    client.do("advance", ms=600)
    [restart] = sent(client)
    client.say(*acks(restart))
    assert names(sent(client)) == ["a"]


def test_what_waits_goes_before_what_is_sent_as_soon_as_the_link_is_live(client: NodeClient) -> None:
    client.make()
    publish(client, "older")
    client.do("evaluate", text="client.onLink = ({ phase }) => { if (phase === 'live') client.publish('newer', 1); }")
    client.accept(hello())
    assert names(sent(client)) == ["older", "newer"]


# Ends


def test_updates_end_with_the_login_or_the_client_and_none_waits_for_ever(client: NodeClient) -> None:
    client.make(options={"token": "twc_key"})
    client.accept(hello())
    publish(client, "before")
    client.do("call", method="publish", args=["unwatched", 1], isWatched=False)
    client.do("call", method="subscribe", args=[{"devices": ["x"]}], isWatched=False)
    client.do("end", code=4502, reason="credential_expired: it was revoked")
    publish(client, "after")
    client.do("call", method="logIn", args=["twc_other"])
    publish(client, "as another")
    client.do("call", method="close")
    publish(client, "closed")
    assert settled(client) == {
        "before": "credential_expired",
        "after": "credential_expired",
        "as another": "closed",
        "closed": "closed",
    }


def test_what_waits_is_bounded_in_number_and_bytes(client: NodeClient) -> None:
    client.make(options={"bufferMaxBytes": 10_000})
    publish(client, "a", "b", value="x" * 4_000)
    publish(client, "c", value="x" * 4_000)
    publish(client, "d")
    assert settled(client) == {"c": "buffer_full"}
    client.accept(hello())
    client.say(*acks(*sent(client)))
    publish(client, "e", value="x" * 9_000)
    assert names(sent(client)) == ["e"]


def test_what_came_for_one_login_does_not_reach_the_next(client: NodeClient) -> None:
    client.make(options={"token": "twc_key"})
    client.do("evaluate", text="client.schedule = (drain) => setTimeout(drain, 1000)")
    client.accept(hello(1, data_snapshot={"secret": {"value": 1, "updated_at_utc": "", "source": "rest", "seq": 1}}))
    client.do("call", method="logIn", args=["twc_other"])
    client.do("advance", ms=2_000)
    assert client.state["twins"] == {}
    assert not [event for event in client.events if "secret" in json.dumps(event)]
