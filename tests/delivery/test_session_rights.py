"""For random rights and random traffic, what a client is told is exactly what it may read."""

import json
from functools import partial
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import Raw

from tests.fakes import AnyonesVisit, CommittingStream, StallingConnection
from twincast.core.model import DataUpdate
from twincast.core.pattern import Pattern
from twincast.core.rights import Principal, Rights
from twincast.delivery.session import Session

NAMES = ["lab/lamp", "lab/door", "home/lamp", "home", "*"]
PATTERNS = ["*", "lab/*", "*/lamp", "home", r"\*", "nowhere"]
POSITION = {"epoch", "seq"}
FIELDS = {
    "hello": {
        *POSITION,
        *("type", "message", "timestamp_utc", "resumed", "subscription", "data_snapshot", "reason", "more"),
        *("limits", "ordered"),
    },
    "snapshot": {*POSITION, "type", "data_snapshot", "more"},
    "data_update": {*POSITION, "type", "device_id", "value", "timestamp_utc", "source", "merged"},
    "control": {*POSITION, "type", "target", "command", "args", "timestamp_utc", "source"},
    "ack": {*POSITION, "type", "id"},
    "error": {"type", "code", "message", "retryable", "id"},
}
patterns = st.lists(st.sampled_from(PATTERNS), max_size=3)
OPERATIONS = st.one_of(
    st.tuples(st.just("readings"), st.lists(st.sampled_from(NAMES), min_size=1, max_size=3)),
    st.tuples(st.just("command"), st.sampled_from(NAMES)),
    st.tuples(st.just("subscribe"), patterns),
    st.tuples(st.just("unsubscribe"), patterns),
    st.tuples(st.just("say telemetry"), st.sampled_from(NAMES)),
    st.tuples(st.just("say control"), st.sampled_from(NAMES)),
    st.tuples(st.just("read"), st.none()),
    st.tuples(st.just("come again"), st.none()),
)


def selected(texts: list[str] | set[str], name: str) -> bool:
    return any(Pattern(text).matches(name) for text in texts)


class Reader:
    """A client with rights, and what it has been told."""

    def __init__(self, stream: CommittingStream, rights: Rights, query: str) -> None:
        self.stream = stream
        self.principal = Principal("key:1", rights)
        self.query = query
        self.wanted = {"*"}
        self.state: dict[str, Any] = {}
        self.names: set[str] = set()
        self.asked = False
        self.cursor = ""
        self.said: dict[int, tuple[str, Any]] = {}
        self.answered: list[int] = []
        self.told_seq: dict[str, int] = {}
        self.told_all_seq = 0
        self.connect()

    def connect(self) -> None:
        self.connection = StallingConnection(3)
        enter = partial(AnyonesVisit, principal=self.principal)
        self.session = Session(self.connection, self.stream, enter, outbox_max_bytes=64 * 1024)
        self.connection.pause = self.session.pause
        parts = [self.query, f"since={self.cursor}" if self.cursor else ""]
        parts += [f"devices={text}" for text in self.wanted or {""}] if self.asked else []
        self.session.begin("&".join(part for part in parts if part).replace("\\", "%5C"))
        self.read()

    def settle(self) -> None:
        for _ in range(200):
            self.read()
            self.stream.pass_time(2)
            if self.session.feed.is_caught_up:
                break
        self.read()

    def read(self) -> None:
        for raw in self.connection.taken():
            self.take(json.loads(raw))
        self.session.resume()
        self.stream.read_on()

    def take(self, message: Any) -> None:
        kind = message["type"]
        assert message.keys() <= FIELDS[kind]
        if kind in {"hello", "snapshot"}:
            self.take_state(message)
        elif kind == "data_update":
            self.take_change(message)
        elif kind == "control":
            self.names.add(message["target"])
        else:
            self.take_answer(message)
        if "epoch" in message and kind != "ack":
            self.cursor = f"{message['epoch']}:{message['seq']}"

    def take_state(self, message: Any) -> None:
        if message["type"] == "hello":
            self.told_seq, self.told_all_seq = {}, message["seq"]
            self.state = self.state if message["resumed"] else {}
        twins = message["data_snapshot"]
        self.told_seq |= {name: twin["seq"] for name, twin in twins.items() if twin["seq"] > message["seq"]}
        self.names |= set(twins)
        self.state |= {name: twin["value"] for name, twin in twins.items()}

    def take_change(self, message: Any) -> None:
        name, seq = message["device_id"], message["seq"]
        since = self.told_seq.get(name, self.told_all_seq)
        changes = [entry for entry in self.stream.log[since:seq] if entry.topic == ("data_update", name)]
        assert message.get("merged", 1) == len(changes), "what it stands for are the changes of this device alone"
        self.told_seq[name] = seq
        self.names.add(name)
        self.state[name] = message["value"]

    def take_answer(self, message: Any) -> None:
        """Check that an answer tells nothing but what was said, whatever there is that may not be read."""
        self.answered.append(message["id"])
        operation, given_ = self.said[message["id"]]
        right = {"telemetry": "publish", "control": "command"}.get(operation)
        if message["type"] == "ack":
            assert right is None or selected(getattr(self.principal.rights, right), given_)
            if right is None:  # it was caught up then, and a page before this may have shown what is newer
                self.told_all_seq = message["seq"]
                self.told_seq = {name: seq for name, seq in self.told_seq.items() if seq > message["seq"]}
        else:
            assert right is not None and not selected(getattr(self.principal.rights, right), given_)
            assert message["code"] == "not_permitted"
            assert message["message"] == f"key:1 has no right to {right} {given_!r}"

    def say(self, said: Any, **message: Any) -> None:
        message_id = len(self.said)
        self.said[message_id] = (message["type"], said)
        self.session.receive(json.dumps({**message, "id": message_id}).encode())


def play(reader: Reader, stream: CommittingStream, operation: str, given_: Any, value: int) -> None:
    if operation == "readings":
        stream.cast(*(DataUpdate(name, Raw(b"%d" % value), "", "rest") for name in given_))
    elif operation == "command":
        stream.command(given_)
    elif operation in {"subscribe", "unsubscribe"}:
        reader.settle()
        if operation == "subscribe":
            reader.wanted = (reader.wanted if reader.asked else set()) | set(given_)
        else:
            reader.wanted = (reader.wanted if reader.asked else set()) - set(given_)
        reader.asked = True
        reader.say(given_, type=operation, devices=given_)
        reader.state = {name: value for name, value in reader.state.items() if selected(reader.wanted, name)}
    elif operation in {"say telemetry", "say control"}:
        if operation == "say telemetry":
            reader.say(given_, type="telemetry", device_id=given_, value=value)
        else:
            reader.say(given_, type="control", target=given_, command="x")
        for entry, *_ in stream.submitted:
            assert reader.principal.may("publish" if entry.topic[0] == "data_update" else "command", entry.topic[1])
        if stream.submitted:
            stream.commit()
    elif operation == "read":
        reader.read()
    else:
        reader.settle()
        reader.session.end()
        reader.connect()


SHOWN_BY_A_LATE_PAGE: list[tuple[str, Any]] = [
    ("readings", ["lab/lamp"]),
    ("command", "lab/lamp"),
    ("subscribe", []),
    ("subscribe", ["*"]),
    ("readings", ["lab/door"]),
    ("read", None),
    ("say telemetry", "lab/door"),
]


@settings(max_examples=300, deadline=None)
@example(read=["*"], publish=["*"], command=[], query="page_size=1", operations=SHOWN_BY_A_LATE_PAGE)
@given(
    read=patterns,
    publish=patterns,
    command=patterns,
    query=st.sampled_from(["", "mode=every", "max_hz=10", "page_size=1"]),
    operations=st.lists(OPERATIONS, max_size=30),
)
def test_a_client_is_told_exactly_what_it_may_read(
    read: list[str], publish: list[str], command: list[str], query: str, operations: list[tuple[str, Any]]
) -> None:
    stream = CommittingStream()
    for number, name in enumerate(NAMES):
        stream.change(name, b"%d" % -number)
    rights = Rights.of({"read": read, "publish": publish, "command": command})
    reader = Reader(stream, rights, query)
    for value, (operation, given_) in enumerate(operations):
        play(reader, stream, operation, given_, value)
    reader.settle()
    assert sorted(reader.answered) == list(reader.said)
    assert reader.names <= {name for name in NAMES if selected(read, name)}
    assert reader.state == {
        name: json.loads(bytes(twin.value))
        for name, twin in stream.state.twins.items()
        if selected(read, name) and selected(reader.wanted, name)
    }
