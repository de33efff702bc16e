"""For random rights and random traffic, what a client is told is exactly what it may read."""

import json
from functools import partial
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import AnyonesVisit, CommittingStream, StallingConnection
from twincast.core.pattern import Pattern
from twincast.core.rights import Principal, Rights
from twincast.core.session import Session

NAMES = ["lab/lamp", "lab/door", "home/lamp", "home", "*"]
PATTERNS = ["*", "lab/*", "*/lamp", "home", r"\*", "nowhere"]
patterns = st.lists(st.sampled_from(PATTERNS), max_size=3)
OPERATIONS = st.one_of(
    st.tuples(st.just("reading"), st.sampled_from(NAMES)),
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
        self.connect()

    def connect(self) -> None:
        self.connection = StallingConnection(3)
        enter = partial(AnyonesVisit, principal=self.principal)
        self.session = Session(self.connection, self.stream, enter, outbox_max_bytes=64 * 1024)
        self.connection.pause = self.session.pause
        parts = [self.query, f"since={self.cursor}" if self.cursor else ""]
        parts += [f"devices={text}" for text in self.wanted or {""}] if self.asked else []
        self.session.greet("&".join(part for part in parts if part).replace("\\", "%5C"))
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
        if kind in {"hello", "snapshot"}:
            if kind == "hello" and not message["resumed"]:
                self.state = {}
            twins = message["data_snapshot"]
            self.names |= set(twins)
            self.state |= {name: twin["value"] for name, twin in twins.items()}
        elif kind == "data_update":
            self.names.add(message["device_id"])
            self.state[message["device_id"]] = message["value"]
        elif kind == "control":
            self.names.add(message["target"])
        if "epoch" in message and kind != "ack":
            self.cursor = f"{message['epoch']}:{message['seq']}"

    def say(self, **message: Any) -> None:
        self.session.receive(json.dumps(message).encode())


def play(reader: Reader, stream: CommittingStream, operation: str, given_: Any, value: int) -> None:
    if operation == "reading":
        stream.change(given_, b"%d" % value)
    elif operation == "command":
        stream.command(given_)
    elif operation in {"subscribe", "unsubscribe"}:
        reader.settle()
        if operation == "subscribe":
            reader.wanted = (reader.wanted if reader.asked else set()) | set(given_)
        else:
            reader.wanted = (reader.wanted if reader.asked else set()) - set(given_)
        reader.asked = True
        reader.say(type=operation, devices=given_)
        reader.state = {name: value for name, value in reader.state.items() if selected(reader.wanted, name)}
    elif operation in {"say telemetry", "say control"}:
        if operation == "say telemetry":
            reader.say(type="telemetry", device_id=given_, value=value)
        else:
            reader.say(type="control", target=given_, command="x")
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


@settings(max_examples=300, deadline=None)
@given(
    read=patterns,
    publish=patterns,
    command=patterns,
    query=st.sampled_from(["", "mode=every", "max_hz=10", "page=1"]),
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
    assert reader.names <= {name for name in NAMES if selected(read, name)}
    assert reader.state == {
        name: json.loads(bytes(twin.value))
        for name, twin in stream.state.twins.items()
        if selected(read, name) and selected(reader.wanted, name)
    }
