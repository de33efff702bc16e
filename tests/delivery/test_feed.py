"""Where in the log one client is, against the log: what its subscription selects, once and in order."""

from functools import partial

import pytest
from msgspec import Raw

from tests.delivery.clients import (
    CAST_OF_PONG,
    COSTLY,
    COSTLY_STEPS,
    EVERYTHING,
    PLENTY_BYTES,
    Client,
    a_client,
    a_stream,
    selecting,
    waiting,
    work_on,
)
from tests.fakes import CommittingStream, FreePayer, RecordingConnection, StallingConnection
from twincast.core.model import DataUpdate, Position
from twincast.core.subscription import Subscription, rules_of
from twincast.delivery.feed import ENTRIES_AT_ONCE, Feed, Phase
from twincast.delivery.scheduler import AT_ONCE_STEPS, SLICE_STEPS
from twincast.delivery.snapshots import SHARED_FROM_DEVICES
from twincast.errors import JournalUnavailable, NotYet, TwincastError


def test_a_client_that_comes_back_gets_what_it_missed_and_then_what_comes() -> None:
    stream = a_stream(*"abcdefgh")
    client = Client(stream)
    client.feed.begin(EVERYTHING, since=Position("epoch-1", 3))
    hello, *missed = client.heard()
    assert (hello["resumed"], hello["seq"], hello["data_snapshot"], "reason" in hello) == (True, 3, {}, False)
    assert [event["seq"] for event in missed] == [4, 5, 6, 7, 8]
    stream.change("i", b"1")
    assert client.seqs() == [9]


def test_a_client_that_missed_nothing_goes_on_at_once() -> None:
    stream = a_stream("a")
    client = Client(stream)
    client.feed.begin(EVERYTHING, since=Position("epoch-1", 1))
    stream.change("a", b"2")
    assert client.seqs() == [1, 2]


@pytest.mark.parametrize(
    ("since", "reason"),
    [(Position("other", 2), "epoch"), (Position("epoch-1", 9), "ahead"), (Position("epoch-1", 0), "too_old")],
)
def test_a_position_that_cannot_be_resumed_is_answered_by_the_reason_and_the_state(
    since: Position, reason: str
) -> None:
    stream = a_stream("a", "b", "a")
    stream.oldest_since = 1
    client = Client(stream)
    client.feed.begin(EVERYTHING, since=since)
    [hello] = client.heard()
    assert (hello["resumed"], hello["reason"], hello["seq"]) == (False, reason, 3)
    assert {device: twin["seq"] for device, twin in hello["data_snapshot"].items()} == {"a": 3, "b": 2}


@pytest.mark.parametrize("error", [None, NotYet("not yet")], ids=["it comes", "it does not"])
def test_a_position_that_another_server_gave_out_is_waited_for_and_nothing_comes_before_the_hello(
    error: NotYet | None,
) -> None:
    stream = a_stream("a", "b")
    stream.is_shared = True
    client = Client(stream)
    client.feed.begin(EVERYTHING, since=Position("epoch-1", 3))
    client.feed.sender.offer(CAST_OF_PONG)
    assert client.heard() == []
    stream.change("c", b"1")
    assert client.heard() == [], "it has that one from the other server"
    [call] = stream.comings
    call(error)
    if error is not None:
        assert client.ended == [error]
        return
    hello, pong = client.heard()
    assert (hello["type"], hello["resumed"], hello["seq"], pong["type"]) == ("hello", True, 3, "pong")
    stream.change("d", b"1")
    assert client.seqs() == [4]


def test_a_client_that_leaves_while_its_position_is_to_come_is_waited_for_no_longer() -> None:
    stream = a_stream("a")
    stream.is_shared = True
    client = Client(stream)
    client.feed.begin(EVERYTHING, since=Position("epoch-1", 2))
    client.feed.close()
    assert stream.comings == []


def test_what_comes_while_the_log_is_read_back_is_not_lost_and_comes_behind_it() -> None:
    stream = a_stream(*"abcdefgh")
    stream.reads_wait = True
    client = Client(stream)
    client.feed.begin(EVERYTHING, since=Position("epoch-1", 1))
    stream.change("i", b"1")
    for _ in range(5):
        stream.read_on()
        stream.change("x", b"1")
    stream.read_on()
    stream.read_on()
    seqs = client.seqs()[1:]
    assert seqs == list(range(2, stream.state.seq + 1))


def test_a_client_that_leaves_while_the_log_is_read_back_hears_nothing_more() -> None:
    stream = a_stream("a", "b")
    stream.reads_wait = True
    client = Client(stream)
    client.feed.begin(EVERYTHING, since=Position("epoch-1", 0))
    client.heard()
    client.feed.close()
    stream.read_on()
    stream.change("a", b"1")
    assert (client.heard(), len(stream.router)) == ([], 0)


def test_a_disk_that_does_not_give_the_log_ends_the_feed() -> None:
    class FailingStream(CommittingStream):
        def _block(self, since: int, until: int) -> TwincastError:
            return JournalUnavailable("the disk is gone")

    stream = FailingStream()
    stream.change("a", b"1")
    client = Client(stream)
    client.feed.begin(EVERYTHING, since=Position("epoch-1", 0))
    stream.read_on()
    assert [error.code for error in client.ended] == ["journal_unavailable"]


def test_a_log_that_was_cut_off_meanwhile_is_a_gap_and_the_state_follows() -> None:
    stream = a_stream(*"abcabc", block_entries=2)
    stream.reads_wait = True
    client = Client(stream)
    client.feed.begin(EVERYTHING, since=Position("epoch-1", 0))
    stream.read_on()
    stream.oldest_since = 4
    stream.read_on()
    _, first, second, gap, snapshot = client.heard()
    assert (first["seq"], second["seq"]) == (1, 2)
    assert gap == {"type": "gap", "epoch": "epoch-1", "from": 3, "to": 6}
    assert {device: twin["seq"] for device, twin in snapshot["data_snapshot"].items()} == {"a": 4, "b": 5, "c": 6}
    assert snapshot["seq"] == 6
    stream.change("a", b"1")
    assert client.seqs() == [7]


def test_only_what_is_selected_comes_and_only_its_state() -> None:
    stream = a_stream("lab/a", "old/b", "lab/c")
    client = Client(stream)
    client.feed.begin(selecting("lab/*", "door"))
    [hello] = client.heard()
    assert sorted(hello["data_snapshot"]) == ["lab/a", "lab/c"]
    for device_id in ("lab/a", "old/b", "door", "doors", "lab/new"):
        stream.change(device_id, b"1")
    stream.command("lab/a")
    stream.command("old/b")
    assert [message.get("device_id") or message["target"] for message in client.heard()] == [
        "lab/a",
        "door",
        "lab/new",
        "lab/a",
    ]


def test_kinds_select_by_themselves() -> None:
    stream = a_stream()
    commands = a_client(stream, Subscription(rules_of(["*"], ["control"])))
    data = a_client(stream, Subscription(rules_of(["*"], ["data_update"])))
    stream.change("a", b"1")
    stream.command("a")
    assert (commands.seqs(), data.seqs()) == ([2], [1])


def test_a_deletion_comes_in_its_place_and_the_device_is_no_more_in_what_others_begin_with() -> None:
    stream = a_stream("a", "b")
    client = a_client(stream, EVERYTHING)
    stream.delete("a")
    stream.change("c", b"1")
    deleted, change = client.heard()
    assert (deleted["type"], deleted["device_id"], deleted["seq"], change["seq"]) == ("deleted", "a", 3, 4)
    newcomer, one_who_names_it = Client(stream), Client(stream)
    newcomer.feed.begin(EVERYTHING)
    one_who_names_it.feed.begin(selecting("a", "b"))
    assert sorted(newcomer.heard()[0]["data_snapshot"]) == ["b", "c"]
    assert sorted(one_who_names_it.heard()[0]["data_snapshot"]) == ["b"]
    stream.change("a", b"2")
    assert (client.seqs(), newcomer.seqs(), one_who_names_it.seqs()) == ([5], [5], [5])


def test_a_client_that_comes_back_is_sent_what_was_deleted_meanwhile() -> None:
    stream = a_stream("a", "b")
    stream.delete("a")
    client = Client(stream)
    client.feed.begin(EVERYTHING, since=Position("epoch-1", 2))
    assert [(message["type"], message["seq"]) for message in client.heard()] == [("hello", 2), ("deleted", 3)]


def test_a_client_has_a_position_only_if_it_was_sent_everything_up_to_it() -> None:
    stream = a_stream()
    live, throttled = a_client(stream, EVERYTHING), a_client(stream, selecting("*", max_hz=10))
    stream.change("a", b"1")
    stream.change("a", b"2")
    assert live.feed.position == ("epoch-1", 2)
    assert throttled.feed.position == ("epoch-1", 1), "the second change waits in the group"
    live.feed.sender.pause()
    stream.change("a", b"3")
    assert live.feed.position is None
    live.feed.sender.resume()
    assert live.feed.position == ("epoch-1", 3)


def test_a_changed_subscription_brings_the_state_of_what_it_adds_and_nothing_of_what_it_leaves() -> None:
    stream = a_stream("a", "b", "c")
    client = a_client(stream, selecting("a", "b"))
    client.feed.change(selecting("b", "c"), lambda: None)
    [snapshot] = client.heard()
    assert (snapshot["type"], snapshot["seq"], list(snapshot["data_snapshot"])) == ("snapshot", 3, ["c"])
    for device_id in "abc":
        stream.change(device_id, b"1")
    assert client.seqs() == [5, 6]


def test_a_client_that_takes_the_state_slowly_is_spared_what_it_has_already_and_no_device_goes_back() -> None:
    for mode in ("latest", "every"):
        stream = a_stream(*"abcdef")
        client = Client(stream, StallingConnection(writes_until_full=1))
        client.feed.begin(selecting("*", mode=mode), page_size=2)
        for device_id in "acace":
            stream.change(device_id, b"%d" % (stream.state.seq + 1))
        messages = []
        for _ in range(10):
            messages += client.heard()
            client.feed.sender.resume()
        pages, events = messages[:3], messages[3:]
        assert [{name: twin["seq"] for name, twin in page["data_snapshot"].items()} for page in pages] == [
            {"a": 1, "b": 2},
            {"c": 10, "d": 4},
            {"e": 11, "f": 6},
        ]
        assert {page["seq"] for page in pages} == {6}
        heard = [(event["device_id"], event["seq"], event.get("merged", 1)) for event in events]
        assert heard == ([("a", 9, 2)] if mode == "latest" else [("a", 7, 1), ("a", 9, 1)])


def test_until_the_selected_devices_are_known_a_client_is_sent_nothing_and_then_all_in_order() -> None:
    stream = waiting(a_stream("lab/a", "x"))
    client = Client(stream)
    client.feed.begin(selecting("lab/*"))
    client.feed.sender.offer(CAST_OF_PONG)
    stream.change("lab/b", b"1")
    client.feed.sender.resume()
    assert (client.heard(), client.feed.position) == ([], None)
    stream.change("lab/c", b"1")
    work_on(stream)
    hello, pong = client.heard()
    assert (hello["type"], hello["seq"], sorted(hello["data_snapshot"])) == ("hello", 4, ["lab/a", "lab/b", "lab/c"])
    assert pong["type"] == "pong"
    stream.change("lab/a", b"2")
    assert client.seqs() == [5]


def test_a_fleet_that_waits_for_the_same_devices_is_served_whole() -> None:
    stream = waiting(a_stream("lab/a", "x"))
    fleet = [Client(stream) for _ in range(30)]
    for client in fleet:
        client.feed.begin(selecting("lab/*"))
    work_on(stream)
    assert all(client.feed.is_caught_up for client in fleet)
    assert {tuple(hello["data_snapshot"]) for client in fleet for hello in client.heard()} == {("lab/a",)}
    assert (len(stream.scheduler), stream.timers) == (0, [])


def test_a_fleet_that_waits_for_the_same_large_state_is_sent_it_whole_and_all_that_follows() -> None:
    stream = CommittingStream(block_entries=512)
    stream.cast(*(DataUpdate(f"lab/{number}", Raw(b"1"), "", "rest") for number in range(2 * SHARED_FROM_DEVICES)))
    stream.change("x", b"1")
    waiting(stream)
    fleet = [Client(stream) for _ in range(30)]
    for client in fleet:
        client.feed.begin(selecting("lab/*"))
        client.feed.sender.offer(CAST_OF_PONG)
    work_on(stream)
    assert stream.snapshots.encoded_count == 1, "the first one's snapshot is shared by those who waited with it"
    for client in fleet:
        hello, pong = client.heard()
        assert (hello["type"], len(hello["data_snapshot"]), pong["type"]) == ("hello", 2 * SHARED_FROM_DEVICES, "pong")
        assert client.feed.is_caught_up
    stream.change("lab/1", b"2")
    assert [client.seqs() for client in fleet] == [[stream.state.seq]] * len(fleet)


def test_nothing_is_sent_before_the_hello_not_even_at_the_end() -> None:
    stream = waiting(a_stream("lab/a"))
    client = Client(stream)
    client.feed.begin(selecting("lab/*"))
    client.feed.sender.offer(CAST_OF_PONG)
    client.feed.send_replies()
    client.feed.close()
    assert client.heard() == []


def test_until_the_added_devices_are_known_the_old_subscription_goes_on_and_other_changes_wait() -> None:
    stream = a_stream("a", "b1", "b2")
    client = a_client(stream, selecting("a"))
    told: list[str] = []

    def change(pattern: str) -> None:
        told.append(f"begins {pattern}")
        client.feed.change(selecting(pattern), lambda: told.append(pattern))

    waiting(stream)
    for pattern in ("b*", "c"):
        client.feed.when_caught_up(partial(change, pattern))
    stream.change("a", b"2")
    stream.change("b1", b"2")
    assert (client.seqs(), told) == ([4], ["begins b*"])
    stream.scheduler.at_once_steps = AT_ONCE_STEPS
    work_on(stream)
    [snapshot] = client.heard()
    assert {device: twin["seq"] for device, twin in snapshot["data_snapshot"].items()} == {"b1": 5, "b2": 3}
    assert told == ["begins b*", "b*", "begins c", "c"]
    for device_id in ("a", "b1", "c"):
        stream.change(device_id, b"3")
    assert client.seqs() == [8]


def test_a_change_waits_until_a_client_that_fell_behind_meanwhile_has_caught_up() -> None:
    stream = a_stream("a", "b")
    client = a_client(stream, selecting("a"))
    told: list[str] = []
    waiting(stream)
    client.feed.when_caught_up(lambda: client.feed.change(selecting("b*"), lambda: told.append("b*")))
    client.feed.sender.pause()
    stream.change("a", b"2")
    work_on(stream)
    assert (client.heard(), told) == ([], [])
    stream.change("bee", b"1")
    client.feed.sender.resume()
    work_on(stream)
    update, snapshot = client.heard()
    assert (update["seq"], sorted(snapshot["data_snapshot"]), told) == (3, ["b", "bee"], ["b*"])


def test_no_work_is_done_for_a_client_that_has_left() -> None:
    stream = a_stream(*(f"d{number}" for number in range(9)), block_entries=3)
    live = a_client(stream, selecting("x"))
    waiting(stream)
    coming, resuming = Client(stream), Client(stream)
    coming.feed.begin(selecting("d*"))
    resuming.feed.begin(selecting("*1"), since=Position("epoch-1", 0))
    live.feed.change(selecting("*7"), lambda: None)
    assert len(stream.scheduler) == 3
    for client in (coming, resuming, live):
        client.feed.close()
        client.budget.paid.clear()
    work_on(stream)
    assert coming.budget.paid == resuming.budget.paid == live.budget.paid == []
    assert (len(stream.scheduler), len(stream.router), stream.timers) == (0, 0, [])
    assert coming.heard() == [] and live.heard() == []


def test_a_log_that_selects_nothing_is_read_back_with_pauses_for_others() -> None:
    stream = CommittingStream(block_entries=512)
    stream.cast(*(DataUpdate(f"d{number % 10}", Raw(b"1"), "", "rest") for number in range(5 * ENTRIES_AT_ONCE)))
    client = Client(stream)
    client.feed.begin(selecting("x"), since=Position("epoch-1", 0))
    scheduler = 0
    while not client.feed.is_caught_up:
        scheduler += 1
        stream.pass_time(0)
    assert scheduler >= 5
    stream.change("x", b"1")
    assert client.seqs() == [0, stream.state.seq]


def test_many_devices_and_patterns_are_matched_in_slices_and_charged() -> None:
    stream = CommittingStream(block_entries=512)
    stream.cast(*(DataUpdate(f"{'a' * 100}{number}", Raw(b"1"), "", "rest") for number in range(300)))
    for since in (None, Position("epoch-1", 0)):
        budget, connection = FreePayer(), RecordingConnection()
        feed = Feed(connection.write, stream, lambda _: None, budget=budget, outbox_max_bytes=PLENTY_BYTES)
        feed.begin(selecting(*COSTLY), since=since)
        while not feed.is_caught_up:
            stream.pass_time(0)
        assert max(budget.paid) <= SLICE_STEPS + COSTLY_STEPS
        assert sum(budget.paid) >= 300 * 100 * 60


def test_each_phase_says_where_in_the_log_the_client_is() -> None:
    stream = a_stream(*"abcdef", block_entries=2)
    client = Client(stream)
    phases = [client.feed.phase]
    stream.reads_wait = True
    client.feed.begin(selecting("a*"), since=Position("epoch-1", 0))
    phases.append(client.feed.phase)
    stream.oldest_since = 4
    stream.scheduler.at_once_steps = 0
    stream.read_on()
    phases.append(client.feed.phase)
    stream.change("a", b"7")
    work_on(stream)
    phases.append(client.feed.phase)
    client.feed.close()
    phases.append(client.feed.phase)
    assert phases == [Phase.NEW, Phase.READING, Phase.GAP, Phase.LIVE, Phase.CLOSED]
    assert [message["type"] for message in client.heard()] == ["hello", "gap", "snapshot"]


def test_a_client_waits_for_its_first_snapshot_in_a_phase_of_its_own_and_falls_back_from_live_in_mode_every() -> None:
    stream = waiting(a_stream("a"))
    client = Client(stream, outbox_max_bytes=1_000)
    client.feed.begin(selecting("a", "b*", mode="every"))
    phases = [client.feed.phase]
    work_on(stream)
    phases.append(client.feed.phase)
    client.feed.sender.pause()
    for _ in range(100):
        stream.change("a", b"1")
    phases.append(client.feed.phase)
    stream.scheduler.at_once_steps = AT_ONCE_STEPS
    client.feed.sender.resume()
    phases.append(client.feed.phase)
    assert phases == [Phase.OPENING, Phase.LIVE, Phase.CATCHING_UP, Phase.LIVE]
    assert client.seqs() == [1, *range(2, 102)]
