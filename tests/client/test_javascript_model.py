"""The JavaScript client in every order of things: cuts at each message, refusals, restarts, restored and wiped logs.

A server of a hundred lines stands for the real one: what it says comes message by message, or not at all. Whatever
happens, in the end the client's state is the server's; in between every change came once, in order, or lies in a gap;
and every update was settled once, and stored once, in order.
"""

import json
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from tests.client.node_client import LIMITS, NodeClient, hello

DEVICES = ("a", "b", "ab")
PATTERNS = ("*", "a", "b", "a*")
MESSAGE_MAX_BYTES, LOWERED_MAX_BYTES, PROXY_MAX_BYTES = 2_000, 1_000, 600
Entry = dict[str, Any]
Rule = TypeVar("Rule", bound=Callable[..., None])


class PatternSet(frozenset[str]):
    """The names that patterns select."""

    def has(self, name: str) -> bool:
        return any(name.startswith(text[:-1]) if text.endswith("*") else name == text for text in self)


class Server:
    """A log, and what may go wrong with it."""

    def __init__(self) -> None:
        self.log: list[Entry] = []
        self.runs: list[tuple[str, int]] = [("run-0", 0)]  # each with the seq at which it began
        self.count = 0
        self.oldest = 1
        self.answers: dict[str, int] = {}
        self.failing = 0
        self.message_max_bytes = MESSAGE_MAX_BYTES
        self.attempts = 0

    @property
    def epoch(self) -> str:
        return self.runs[-1][0]

    def start(self, back_to: int | None = None, *, anew: bool = False) -> None:
        """Run again: on the same log, on an older copy of it, or on an empty one."""
        if anew:
            back_to, self.runs = 0, []
        if back_to is not None:
            self.log = self.log[:back_to]
            self.runs = [run for run in self.runs if run[1] <= back_to]
            self.answers = {key: seq for key, seq in self.answers.items() if seq <= back_to}
            self.oldest = min(self.oldest, back_to + 1)
        self.count += 1
        self.runs.append((f"run-{self.count}", len(self.log)))

    def why_not(self, since: str) -> str:
        epoch, _, text = since.rpartition(":")
        ends = dict(
            zip((run for run, _ in self.runs), [began for _, began in self.runs[1:]] + [len(self.log)], strict=True)
        )
        if epoch not in ends:
            return "epoch"
        if int(text) > ends[epoch]:
            return "ahead" if epoch == self.epoch else "epoch"
        return "too_old" if int(text) < self.oldest - 1 else ""

    def append(self, entry: Entry) -> int:
        seq = len(self.log) + 1
        self.log.append({**entry, "seq": seq, "timestamp_utc": "", "source": "rest"})
        return seq

    def twins(self, names: PatternSet) -> dict[str, Any]:
        twins: dict[str, Any] = {}
        for entry in self.log:
            if not names.has(entry["device_id"]):
                continue
            twins.pop(entry["device_id"], None)
            if entry["type"] == "data_update":
                twin = {name: entry[name] for name in ("value", "source", "seq")}
                twins[entry["device_id"]] = {**twin, "updated_at_utc": ""}
        return twins


class Conversation:
    """One connection: what is on its way to the client, and what of the client's is on its way here."""

    def __init__(self, server: Server, url: str) -> None:
        query = parse_qs(urlsplit(url).query, keep_blank_values=True)
        assert query["ordered"] == ["1"]
        self.server = server
        self.patterns = {text for text in query.get("devices", ["*"]) if text}
        self.is_asked = "devices" in query
        self.is_throttled = "max_hz" in query
        self.is_out_of_order = False
        self.outgoing: list[Entry] = []
        since = query.get("since", [""])[0]
        reason = server.why_not(since) if since else ""
        self.seq = int(since.rpartition(":")[2]) if since and not reason else len(server.log)
        terms = {"limits": {**LIMITS, "message_max_bytes": server.message_max_bytes}, "epoch": server.epoch}
        if since and not reason:
            self.outgoing.append(hello(self.seq, resumed=True, **terms))
        else:
            more = {"reason": reason} if reason else {}
            self._say_state("hello", server.twins(self.names), **terms, **more)
        self.tell()

    @property
    def names(self) -> PatternSet:
        return PatternSet(self.patterns)

    def tell(self) -> None:
        """Say what is in the log and was not said; a throttled connection holds it back until `flush`."""
        if not self.is_throttled:
            self.flush()

    def flush(self) -> None:
        merged: dict[str, Entry] = {}
        for entry in self.server.log[self.seq :]:
            if self.names.has(entry["device_id"]):
                key = entry["device_id"] if self.is_throttled else str(entry["seq"])
                merged.pop(key, None)
                merged[key] = {**entry, "epoch": self.server.epoch}
        self.outgoing += merged.values()
        self.seq = len(self.server.log)

    def lose_track(self) -> None:
        """Say that changes may be missing, and the state."""
        missing = {"from": self.seq + 1, "to": len(self.server.log)}
        self.outgoing.append({"type": "gap", "epoch": self.server.epoch, **missing})
        self.seq = len(self.server.log)
        self._say_state("snapshot", self.server.twins(self.names))

    def hear(self, message: Entry, size_bytes: int) -> bool:
        """Take a message; return whether the connection goes on."""
        answer = {"id": message.get("id")}
        if size_bytes > self.server.message_max_bytes:
            self.outgoing.append({"type": "error", "code": "too_large", "message": "", "retryable": False, **answer})
            return False
        if message["type"] == "ping":
            told = {"epoch": self.server.epoch, "seq": self.seq} if self.seq == len(self.server.log) else {}
            self.outgoing.append({"type": "pong", "timestamp_utc": "", **told})
        elif message["type"] == "restart":
            self.is_out_of_order = False
            self._acknowledge(message["id"], len(self.server.log))
        elif message["type"] in {"subscribe", "unsubscribe"}:
            self._change(message)
        else:
            self._store(message)
        return True

    def _store(self, message: Entry) -> None:
        server = self.server
        known = server.answers.get(message["update_id"])
        refusal: dict[str, Any] = {"type": "error", "id": message["id"], "message": "", "retryable": True}
        if self.is_out_of_order:
            self.outgoing.append({**refusal, "code": "out_of_order"})
        elif known is not None:
            self._acknowledge(message["id"], known)
        elif server.failing:
            server.failing -= 1
            self.is_out_of_order = True
            self.outgoing.append({**refusal, "code": "journal_unavailable"})
        elif message.get("value") == "bad":
            self.outgoing.append({**refusal, "code": "validation_failed", "retryable": False})
        elif message["type"] == "delete" and message["device_id"] not in server.twins(PatternSet(["*"])):
            self.outgoing.append({**refusal, "code": "not_found", "retryable": False})
        else:
            kind = "deleted" if message["type"] == "delete" else "data_update"
            entry = {"type": kind, "device_id": message["device_id"], "update_id": message["update_id"]}
            seq = server.append({**entry, **({"value": message["value"]} if kind == "data_update" else {})})
            server.answers[message["update_id"]] = seq
            self._acknowledge(message["id"], seq)
            self.tell()

    def _change(self, message: Entry) -> None:
        self.flush()
        before = self.names
        if not self.is_asked:
            self.patterns, self.is_asked = set(), True
        if message["type"] == "subscribe":
            self.patterns |= set(message["devices"])
        else:
            self.patterns -= set(message["devices"])
        added = {name: twin for name, twin in self.server.twins(self.names).items() if not before.has(name)}
        if added:
            self._say_state("snapshot", added)
        self._acknowledge(message["id"], len(self.server.log))

    def _acknowledge(self, message_id: Any, seq: int) -> None:
        self.outgoing.append({"type": "ack", "id": message_id, "epoch": self.server.epoch, "seq": seq})

    def _say_state(self, kind: str, twins: dict[str, Any], **how: Any) -> None:
        """Say the state in parts of one device, as a large one is."""
        parts = [{name: twin} for name, twin in twins.items()] or [{}]
        for index, part in enumerate(parts):
            more = {"more": True} if index < len(parts) - 1 else {}
            content = {"epoch": self.server.epoch, "seq": len(self.server.log), "data_snapshot": part, **more}
            if kind == "hello" and index == 0:
                self.outgoing.append(hello(**{**content, **how}))
            else:
                self.outgoing.append({"type": "snapshot", **content})


TROUBLES = ("cuts", "proxy", "disk", "restarts", "another log", "forgets", "wishes")


def may(trouble: str) -> Callable[[Rule], Rule]:
    """Let a rule take part only where its trouble does: with all in each life, one would heal what another broke."""
    return precondition(lambda self: trouble in self.troubles)


class Life(RuleBasedStateMachine):
    """What may happen to one client."""

    node: NodeClient
    troubles: frozenset[str] = frozenset()

    @initialize(
        throttled=st.booleans(),
        devices=st.sampled_from([None, None, ["a*", "b", "old"], []]),
        known=st.lists(st.sampled_from(["old", "ab"]), max_size=2, unique=True),
        troubles=st.frozensets(st.sampled_from(TROUBLES), max_size=3),
    )
    def begin(self, throttled: bool, devices: list[str] | None, known: list[str], troubles: frozenset[str]) -> None:
        self.troubles = troubles | {"cuts"}
        options = {"mode": "latest", "maxHz": 1} if throttled else {"mode": "every"}
        self.server = Server()
        for device in known:
            self.server.append({"type": "data_update", "device_id": device, "value": 0})
        self.node.events = []
        self.node.make(options={**options, **({} if devices is None else {"devices": devices})})
        self.is_throttled = throttled
        self.devices = devices
        self.connection: Conversation | None = None
        self.unread: list[str] = []
        self.url = ""
        self.published: list[str] = []
        self.settled: dict[str, str] = {}
        self.wished: set[str] = set()
        self.heard: list[Any] = []
        self.proxy_max_bytes: int | None = None
        self.look()

    def look(self) -> None:
        """Take note of what the client did."""
        for event in self.node.events:
            assert "unhandled" not in event and "reported" not in event, event
            if "dialed" in event:
                self.url, self.connection, self.unread = event["dialed"], None, []
            elif "hung_up" in event:
                self.url, self.connection, self.unread = "", None, []
            elif "sent" in event:
                self.unread.append(event["sent"])
            elif "settled" in event:
                assert event["settled"] not in self.settled, "an answer came twice"
                self.settled[event["settled"]] = event.get("code", "stored")
            elif "snapshot" in event:
                self.heard.append({**event["snapshot"], "log": tuple(self.server.log)})
            elif "messages" in event:
                self.heard += [message for message in event["messages"] if "device_id" in message]
        self.node.events = []

    def act(self, action: str, **how: Any) -> None:
        self.node.do(action, **how)
        self.look()

    # The network

    @rule()
    def time_passes(self) -> None:
        self.act("advance", ms=400)

    @rule(count=st.integers(1, 3))
    def a_greeting_is_cut(self, count: int) -> None:
        """Let a connection break after so many messages, and come back."""
        if self.connection:
            self.cut(1006)
        self.it_comes_back()
        self.messages_come(count)
        if self.url:
            self.cut(1006)
        self.it_comes_back()

    @rule()
    def everything_flows(self) -> None:
        """Let the connection be there, and everything come that is on its way either way."""
        self.it_comes_back()
        for _ in range(3):
            self.messages_arrive(1_000)
            self.messages_come(1_000)

    @rule()
    def it_comes_back(self) -> None:
        if self.node.phase == "waiting":
            self.node.dial_again()
            self.look()
        if self.url and self.connection is None:
            self.connection = Conversation(self.server, self.url)
            self.act("accept")

    @rule(count=st.integers(1, 8))
    def messages_come(self, count: int) -> None:
        if self.connection is None or not self.connection.outgoing:
            return
        texts = [json.dumps(message) for message in self.connection.outgoing[:count]]
        del self.connection.outgoing[:count]
        self.act("receive", texts=texts)

    @rule(count=st.integers(1, 8))
    def messages_arrive(self, count: int) -> None:
        if self.connection is None:
            return
        texts = self.unread[:count]
        del self.unread[:count]
        for text in texts:
            size_bytes = len(text.encode())
            if self.proxy_max_bytes and size_bytes > self.proxy_max_bytes:
                self.cut(1009)
                return
            if not self.connection.hear(json.loads(text), size_bytes):
                self.messages_come(1_000)
                self.cut(1009)
                return

    @precondition(lambda self: self.url)
    @rule(code=st.sampled_from([1006, 1001, 1013, 4008]))
    def cut(self, code: int) -> None:
        self.url, self.connection, self.unread = "", None, []
        self.act("end", code=code)

    @may("proxy")
    @rule(limit=st.sampled_from([None, PROXY_MAX_BYTES]))
    def the_proxy_changes(self, limit: int | None) -> None:
        self.proxy_max_bytes = limit

    # The server

    @rule(device=st.sampled_from(DEVICES), value=st.integers(0, 3))
    def somebody_writes(self, device: str, value: int) -> None:
        self.server.append({"type": "data_update", "device_id": device, "value": value})
        if self.connection:
            self.connection.tell()

    @rule(device=st.sampled_from(DEVICES))
    def somebody_deletes(self, device: str) -> None:
        if device in self.server.twins(PatternSet(["*"])):
            self.server.append({"type": "deleted", "device_id": device})
            if self.connection:
                self.connection.tell()

    @rule()
    def what_was_held_back_goes(self) -> None:
        if self.connection:
            self.connection.flush()

    @may("forgets")
    @rule()
    def the_reader_loses_track(self) -> None:
        if self.connection and self.connection.seq < len(self.server.log):
            self.connection.lose_track()

    @may("disk")
    @rule(times=st.integers(1, 2))
    def the_disk_fails(self, times: int) -> None:
        self.server.failing = times

    @may("restarts")
    @rule(lowered=st.booleans())
    def the_server_restarts(self, lowered: bool) -> None:
        self.server.message_max_bytes = LOWERED_MAX_BYTES if lowered else MESSAGE_MAX_BYTES
        self.server.start()
        if self.url:
            self.cut(1012)

    @may("another log")
    @rule(back=st.integers(0, 4))
    def a_copy_is_restored(self, back: int) -> None:
        self.server.start(max(0, len(self.server.log) - back))
        if self.url:
            self.cut(1006)

    @may("another log")
    @rule()
    def the_log_is_wiped(self) -> None:
        self.server.start(anew=True)
        if self.url:
            self.cut(1006)

    @may("forgets")
    @rule()
    def the_log_forgets(self) -> None:
        self.server.oldest = len(self.server.log) + 1

    # The client

    @rule(device=st.sampled_from(DEVICES), value=st.sampled_from([0, 1, 2, "bad", "x" * 700, "y" * 1_400]))
    def it_publishes(self, device: str, value: Any) -> None:
        self._send("publish", device, value)

    @rule(device=st.sampled_from(DEVICES))
    def it_deletes(self, device: str) -> None:
        self._send("delete", device)

    def _send(self, method: str, *args: Any) -> None:
        name = f"update {len(self.published)}"
        self.published.append(name)
        self.act("call", method=method, args=args, name=name)

    @may("wishes")
    @rule(patterns=st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=2), adds=st.booleans())
    def it_wishes(self, patterns: list[str], adds: bool) -> None:
        name = f"wish {len(self.wished)}"
        self.wished.add(name)
        if adds:
            self.act("call", method="subscribe", args=[{"devices": patterns}], name=name)
        else:
            self.act("call", method="unsubscribe", args=[patterns], name=name)

    # What must hold

    def teardown(self) -> None:
        if not hasattr(self, "server"):
            return
        self.server.failing = 0
        for _ in range(200):
            if self.connection is None:
                self.it_comes_back()
            self.time_passes()
            if self.connection:
                self.connection.flush()
            self.messages_arrive(1_000)
            if self.connection and self.connection.outgoing:
                self.messages_come(1_000)
            elif self.connection and not self.unread and len(self.settled) == len(self.published) + len(self.wished):
                break
        self.check_end()

    def check_end(self) -> None:
        assert self.connection, "it came back"
        assert set(self.settled) == {*self.published, *self.wished}, "each was settled"
        twins = self.node.state["twins"]
        assert twins == self.server.twins(self.connection.names), "the state is the server's"
        keys = [entry["update_id"] for entry in self.server.log if "update_id" in entry]
        assert len(keys) == len(set(keys)), "nothing is stored twice"
        numbers = [int(key.rpartition("-")[2]) for key in keys]
        assert numbers == sorted(numbers), "what is stored is in order"
        self.check_nothing_is_missing()
        self.act("call", method="close")
        assert self.node.timers == 0

    def check_nothing_is_missing(self) -> None:
        """Every change comes once and in order, or lies in a gap; for a client that follows everything."""
        at: int | None = None
        for event in self.heard:
            if "twins" in event:
                gap = event["gap"]
                if at is not None and gap and gap["reason"] == "too_old":
                    assert (gap["from"] > at, gap["to"]) == (True, event["seq"])
                    assert not self.followed(event["log"][at : gap["from"] - 1]), "what comes before a gap is known"
                elif at is not None and not gap:
                    assert event["seq"] >= at, "the state goes back only with a gap"
                assert not gap or gap["from"] <= gap["to"]
                at = event["seq"] if gap or at is None or self.wished else at
            else:
                assert at is not None and event["seq"] > at, "once, and in order"
                if not self.is_throttled and self.devices is None and not self.wished:
                    assert event["seq"] == at + 1, "none is missing"
                at = event["seq"]

    def followed(self, entries: tuple[Entry, ...]) -> list[Entry]:
        """Return those of which a client that never changed its wishes has to be told; of the others nobody can say."""
        names = PatternSet(["*"] if self.devices is None else self.devices)
        return [entry for entry in entries if not self.wished and names.has(entry["device_id"])]


def test_in_every_order_of_things_nothing_is_lost_or_twice(process: NodeClient) -> None:
    class LifeInNode(Life):
        node = process

    how = settings(
        max_examples=400, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    run_state_machine_as_test(LifeInNode, settings=how)
