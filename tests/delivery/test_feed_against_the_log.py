"""Any clients on connections that stall and break, against the log: what each selects, once and in order."""

from collections import Counter
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import Raw

from tests.delivery.clients import Client
from tests.fakes import CommittingStream, StallingConnection
from twincast.core.model import Control, DataUpdate, Deleted, Entry, Position
from twincast.core.subscription import Mode, Subscription, rules_of
from twincast.delivery.scheduler import AT_ONCE_STEPS

NAMES = ["lab/a", "lab/b", "x", "y", "z"]


FILTERS = [["*"], ["lab/*"], ["x"], ["x", "lab/a"], ["*/a", "y"], []]


HOW: tuple[tuple[Mode, float | None], ...] = (("latest", None), ("latest", 10.0), ("every", None))


READABLE = [
    frozenset({"*"}),
    frozenset({"lab/*"}),
    frozenset({"x", "lab/a"}),
    frozenset({"*/a", "y"}),
    frozenset[str](),
]


SUBSCRIPTIONS = [
    Subscription(rules_of(patterns, kinds), mode, max_hz).inside(readable)
    for readable in READABLE
    for patterns in FILTERS
    for kinds in (None, ["data_update"], ["control"], ["deleted"], ["data_update", "deleted"])
    for mode, max_hz in HOW
]


class Watching:
    """A client that follows its cursor through cuts, and what it must be sent of the log."""

    def __init__(self, stream: CommittingStream, subscription: Subscription, writes_until_full: int) -> None:
        self.stream = stream
        self.subscription = subscription
        self._writes_until_full = writes_until_full
        self.cursor: Position | None = None
        self.told_until: int | None = None  # stays when a new greeting is cut off before there is a cursor again
        self.state: dict[str, Any] = {}
        self.counted: Counter[str] = Counter()
        self.seqs: list[int] = []
        self.newer: dict[str, int] = {}
        self.newer_here: dict[str, int] = {}  # a connection that resumes says it again
        self.gaps: list[tuple[int, int]] = []
        self.started_at = 0
        self.was_cut = False
        self.connect()

    def connect(self) -> None:
        self.was_cut |= self.told_until is not None
        self.newer_here = {}
        self.client = Client(self.stream, StallingConnection(self._writes_until_full), outbox_max_bytes=2_000)
        self.client.feed.begin(self.subscription, since=self.cursor)
        self.read()

    def read(self) -> None:
        for message in self.client.heard():
            getattr(self, f"_{message['type']}")(message)

    def settle(self) -> None:
        """Take everything that there is for this client."""
        for _ in range(500):
            self.read()
            if self.client.ended:
                self.client.feed.close()
                self.connect()
            if self.client.feed.is_caught_up:
                break
            self.client.feed.sender.resume()
            self.stream.read_on()
            self.stream.pass_time(1)
        self.read()
        self.stream.pass_time(1)
        self.stream.pass_time(1)
        self.read()

    def _hello(self, message: Any) -> None:
        if not message["resumed"]:
            if self.told_until is not None:
                self.gaps.append((self.told_until + 1, message["seq"]))
            else:
                self.started_at = message["seq"]
            self.state = {}
            self._snapshot(message)
        if message.get("more"):
            self.cursor = None
        else:
            self._stands_at(message)

    def _gap(self, message: Any) -> None:
        self.was_cut = True
        self.state = {}
        self.gaps.append((message["from"], message["to"]))

    def _snapshot(self, message: Any) -> None:
        for device, twin in message["data_snapshot"].items():
            self.state[device] = twin["value"]
            if twin["seq"] > message["seq"]:
                self.newer[device] = self.newer_here[device] = twin["seq"]
        if not message.get("more"):
            self._stands_at(message)

    def _data_update(self, message: Any) -> None:
        assert message["seq"] > self.newer_here.get(message["device_id"], 0), "no device goes back"
        self.state[message["device_id"]] = message["value"]
        self.counted[message["device_id"]] += message.get("merged", 1)
        self._moved(message)

    def _deleted(self, message: Any) -> None:
        self.state.pop(message["device_id"], None)
        self.counted[message["device_id"]] += message.get("merged", 1)
        self._moved(message)

    def _control(self, message: Any) -> None:
        self._moved(message)

    def _moved(self, message: Any) -> None:
        assert message["type"] == self.stream.log[message["seq"] - 1].topic[0]
        self.seqs.append(message["seq"])
        self._stands_at(message)

    def _stands_at(self, message: Any) -> None:
        self.cursor, self.told_until = Position(message["epoch"], message["seq"]), message["seq"]


class FeedsAgainstTheLog(RuleBasedStateMachine):
    """Clients with any subscription, on connections that stall and break, over a log that is read back late and cut."""

    @initialize()
    def begin(self) -> None:
        self.stream = CommittingStream(block_entries=4, part_max_bytes=150)
        self.clients: list[Watching] = []

    @rule(names=st.lists(st.sampled_from([*NAMES, "!x", "!lab/a", "-x", "-y", "-lab/a"]), min_size=1, max_size=6))
    def commit(self, names: list[str]) -> None:
        entries: list[Entry] = []
        for seq, name in enumerate(names, self.stream.state.seq + 1):
            if name.startswith("!"):
                entries.append(Control(name[1:], "on", Raw(b"{}"), "", "rest"))
            elif name.startswith("-"):
                entries.append(Deleted(name[1:], "", "rest"))
            else:
                entries.append(DataUpdate(name, Raw(b"%d" % seq), "", "rest"))
        self.stream.cast(*entries)

    @precondition(lambda self: len(self.clients) < 6)
    @rule(subscription=st.sampled_from(SUBSCRIPTIONS), writes_until_full=st.integers(1, 6))
    def come(self, subscription: Subscription, writes_until_full: int) -> None:
        self.clients.append(Watching(self.stream, subscription, writes_until_full))

    @precondition(lambda self: self.clients)
    @rule(chosen=st.integers(0, 5))
    def cut(self, chosen: int) -> None:
        client = self.clients[chosen % len(self.clients)]
        if client.client.ended:
            return
        client.client.feed.close()
        client.connect()

    @precondition(lambda self: self.clients)
    @rule(chosen=st.integers(0, 5))
    def take(self, chosen: int) -> None:
        client = self.clients[chosen % len(self.clients)]
        client.client.feed.sender.resume()
        client.read()

    @precondition(lambda self: self.clients)
    @rule(chosen=st.integers(0, 5))
    def stall(self, chosen: int) -> None:
        self.clients[chosen % len(self.clients)].client.feed.sender.pause()

    @rule(seconds=st.sampled_from([0.05, 0.2]))
    def pass_time(self, seconds: float) -> None:
        self.stream.pass_time(seconds)

    @rule(wait=st.booleans())
    def read_on(self, wait: bool) -> None:
        self.stream.reads_wait = wait
        self.stream.read_on()

    @rule(waits=st.booleans())
    def let_work_wait(self, waits: bool) -> None:
        self.stream.scheduler.at_once_steps = 0 if waits else AT_ONCE_STEPS

    @rule()
    def work_on(self) -> None:
        self.stream.pass_time(0)

    @rule(keep=st.integers(0, 20))
    def prune(self, keep: int) -> None:
        self.stream.oldest_since = max(self.stream.oldest_since, self.stream.state.seq - keep)

    @invariant()
    def what_was_heard_is_in_order_and_selected(self) -> None:
        for client in getattr(self, "clients", ()):
            client.read()
            assert client.seqs == sorted(set(client.seqs))
            assert all(client.subscription.selects(self.stream.log[seq - 1].topic) for seq in client.seqs)

    def teardown(self) -> None:
        for client in getattr(self, "clients", ()):
            client.settle()
            self._check(client)

    def _check(self, client: Watching) -> None:
        selected = [entry for entry in self.stream.log if client.subscription.selects(entry.topic)]
        newest = {
            device_id: int(bytes(twin.value))
            for device_id, twin in self.stream.state.twins.items()
            if client.subscription.selects(("data_update", device_id))
        }
        is_told_of_deletions = all(client.subscription.selects(("deleted", name)) for name in client.state)
        known = client.state if is_told_of_deletions else {n: v for n, v in client.state.items() if n in newest}
        assert known == newest
        missing = {seq for first, last in client.gaps for seq in range(first, last + 1)}
        owed = [e for e in selected if e.seq > client.started_at and e.seq not in missing]
        heard = set(client.seqs) - missing
        told = {e.seq for e in owed if not isinstance(e, Control) and e.seq <= client.newer.get(e.subject, 0)}
        if client.subscription.mode == "every":
            assert heard | told == {entry.seq for entry in owed}
            return
        assert {e.seq for e in owed if isinstance(e, Control)} <= heard
        if not client.was_cut:  # what was merged into a change behind the cursor is not counted again
            due = (entry for entry in owed if not isinstance(entry, Control) and entry.seq not in told)
            counts = Counter(entry.subject for entry in due)
            for name in counts:  # of a device that is no more, nothing comes to one who is not told so
                if client.subscription.selects(("deleted", name)) or ("deleted", name) not in {
                    entry.topic for entry in self.stream.log
                }:
                    assert client.counted[name] == counts[name]
            assert client.counted <= counts


TestFeedsAgainstTheLog = FeedsAgainstTheLog.TestCase
TestFeedsAgainstTheLog.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
