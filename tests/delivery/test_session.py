"""One client's conversation, without a socket."""

import json
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from tests.fakes import NOW_UTC, AnyonesVisit, CommittingStream, KeyedVisit, RecordingConnection, StallingConnection
from twincast.core.model import Control, DataUpdate, Entry
from twincast.core.producers import ProducerMark
from twincast.core.rights import Principal, Rights
from twincast.delivery.session import ACTIONS, AUTH_MAX_BYTES, Session
from twincast.errors import (
    FellBehind,
    JournalUnavailable,
    KeyReused,
    Stopping,
    TooLarge,
    TwincastError,
    UnsupportedMedia,
)
from twincast.wire.client_messages import CHECKS

OUTBOX_MAX_BYTES = 64 * 1024
TELEMETRY = b'{"type":"telemetry","device_id":"lamp","value":1}'


class Client:
    """A session on a recording connection, joined to a stream."""

    def __init__(
        self,
        connection: RecordingConnection | None = None,
        outbox_max_bytes: int = OUTBOX_MAX_BYTES,
        query: str = "",
    ) -> None:
        self.stream = CommittingStream()
        self.connection = connection or RecordingConnection()
        self.session = Session(self.connection, self.stream, self._admit, outbox_max_bytes=outbox_max_bytes)
        if isinstance(connection, StallingConnection):
            connection.pause = self.session.pause
        self.session.begin(query)
        self.greeting = self.heard()
        self.session.resume()

    def _admit(self, end: Callable[[TwincastError], None]) -> AnyonesVisit:
        self.visit = AnyonesVisit(end)
        return self.visit

    def heard(self) -> list[Any]:
        """Return what the client was sent since the last call."""
        return [json.loads(message) for message in self.connection.taken()]

    def says(self, payload: bytes) -> list[Any]:
        self.session.receive(payload)
        return self.heard()


def test_the_greeting_has_the_state_and_its_position() -> None:
    stream, connection = CommittingStream(), RecordingConnection()
    stream.change("lamp", b"[1]")
    Session(connection, stream, AnyonesVisit, outbox_max_bytes=OUTBOX_MAX_BYTES).begin()
    assert [json.loads(message) for message in connection.taken()] == [
        {
            "type": "hello",
            "message": "connected",
            "timestamp_utc": NOW_UTC,
            "epoch": "epoch-1",
            "seq": 1,
            "resumed": False,
            "subscription": {"devices": {"*": ["control", "data_update", "deleted"]}, "mode": "latest", "max_hz": None},
            "data_snapshot": {"lamp": {"value": [1], "updated_at_utc": NOW_UTC, "seq": 1, "source": "rest"}},
            "limits": {"message_max_bytes": 64 * 1024, "value_max_bytes": 63 * 1024},
        }
    ]


def test_telemetry_is_submitted_and_answered_by_its_event_only() -> None:
    client = Client()
    assert client.says(TELEMETRY) == []
    [(entry, size_bytes, *_)] = client.stream.submitted
    assert isinstance(entry, DataUpdate)
    assert (entry.device_id, bytes(entry.value), entry.source) == ("lamp", b"1", "websocket")
    assert size_bytes == len(TELEMETRY)
    client.stream.commit()
    [event] = client.heard()
    assert (event["type"], event["seq"], event["source"]) == ("data_update", 1, "websocket")


def test_a_command_is_submitted_with_its_args() -> None:
    client = Client()
    client.says(b'{"type":"control","target":"lamp","command":"dim","args":{"to":3}}')
    [(entry, *_)] = client.stream.submitted
    assert isinstance(entry, Control)
    assert (entry.target, entry.command, bytes(entry.args), entry.source) == ("lamp", "dim", b'{"to":3}', "websocket")


@pytest.mark.parametrize("message_id", [7, 0, "mine"])
def test_a_message_with_an_id_is_acknowledged_after_its_commit(message_id: str | int) -> None:
    client = Client()
    client.stream.change("other", b"1")
    client.heard()
    assert client.says(json.dumps(json.loads(TELEMETRY) | {"id": message_id}).encode()) == []
    client.stream.commit()
    event, ack = client.heard()
    assert (event["type"], event["seq"]) == ("data_update", 2)
    assert ack == {"type": "ack", "id": message_id, "epoch": "epoch-1", "seq": 2}


def test_a_message_that_could_not_be_stored_is_answered_by_the_error_and_its_id() -> None:
    client = Client()
    client.says(TELEMETRY)
    client.says(b'{"type":"telemetry","id":7,"device_id":"lamp","value":1}')
    client.stream.refuse(JournalUnavailable("the disk is full"))
    without, with_id = client.heard()
    assert without == {
        "type": "error",
        "code": "journal_unavailable",
        "message": "the disk is full",
        "retryable": True,
    }
    assert with_id == without | {"id": 7}


def an_ordered_client() -> Client:
    """Return a client whose updates stay in order."""
    client = Client(query="ordered=1")
    assert client.greeting[0]["ordered"] is True
    return client


def reading(message_id: int) -> bytes:
    return b'{"type":"telemetry","id":%d,"device_id":"lamp","value":%d}' % (message_id, message_id)


ORDER = b'{"type":"control","id":4,"target":"lamp","command":"on"}'


@pytest.mark.parametrize("refused", [reading(1), TELEMETRY, ORDER], ids=["with an id", "without", "a command"])
def test_on_an_ordered_connection_nothing_is_stored_behind_an_update_that_was_not_until_a_restart(
    refused: bytes,
) -> None:
    client = an_ordered_client()
    client.says(refused)
    client.stream.refuse(JournalUnavailable("the disk is full"))
    client.heard()
    for behind, message_id in (reading(2), 2), (reading(3), 3), (ORDER, 4):
        [error] = client.says(behind)
        assert (error["code"], error["retryable"], error["id"]) == ("out_of_order", True, message_id)
    assert client.stream.submitted == []
    [ack] = client.says(b'{"type":"restart","id":9}')
    assert (ack["type"], ack["id"]) == ("ack", 9)
    assert client.says(reading(2)) == []
    client.stream.commit()
    assert [message["type"] for message in client.heard()] == ["data_update", "ack"]


def test_an_update_that_can_never_be_stored_holds_back_nothing() -> None:
    client = an_ordered_client()
    client.says(b'{"type":"telemetry","id":1,"device_id":"","value":1}')
    client.says(reading(2))
    client.stream.refuse(KeyReused("it came before"))
    client.heard()
    assert client.says(reading(3)) == []
    assert len(client.stream.submitted) == 1


def test_where_no_order_was_asked_for_updates_go_on_behind_one_that_was_not_stored() -> None:
    client = Client()
    client.says(reading(1))
    client.stream.refuse(JournalUnavailable("the disk is full"))
    client.heard()
    assert client.says(reading(2)) == []
    assert len(client.stream.submitted) == 1
    assert [message["id"] for message in client.says(b'{"type":"restart","id":9}')] == [9]


TOGETHER = st.lists(
    st.sampled_from(
        [
            TELEMETRY,
            TELEMETRY,
            b'{"type":"telemetry","device_id":"fan","value":{"rpm":900}}',
            b'{"type":"telemetry","device_id":"fan","value":"%b"}' % (b"x" * 64_000),
            b'{"type":"telemetry","device_id":"lamp","value":2,"id":7}',
            b'{"type":"telemetry","device_id":"","value":2}',
            b'{"type":"control","target":"fan","command":"stop","id":8}',
            b'{"type":"ping"}',
            b'{"type":"restart","id":9}',
            b"[]",
        ]
    ),
    max_size=8,
)


@given(TOGETHER, st.sampled_from(["", "ordered=1"]), st.booleans(), st.booleans(), st.booleans())
def test_messages_that_came_together_mean_what_they_mean_one_by_one(
    payloads: list[bytes], query: str, takes_together: bool, has_rights: bool, is_stored: bool
) -> None:
    together, alone = Client(query=query), Client(query=query)
    together.stream.takes_together = takes_together
    heard: list[list[Any]] = []
    for client in (together, alone):
        if has_rights:
            rights = Rights(publish=frozenset({"lamp"}), read=frozenset({"*"}))
            client.visit.principal = Principal("key:1", rights)
        if client is together:
            client.session.receive_all(payloads)
        else:
            for payload in payloads:
                client.session.receive(payload)
        submitted = [entry for entry, *_ in client.stream.submitted]
        replies = client.heard()
        if is_stored:
            client.stream.commit()
        else:
            client.stream.refuse(JournalUnavailable("the disk is full"))
        heard.append(
            [submitted, replies, client.heard(), client.says(TELEMETRY), client.session.count(0), client.visit.charged]
        )
    assert heard[0] == heard[1]


def test_readings_that_came_together_are_one_submission_and_are_counted_one_by_one() -> None:
    client = Client()
    client.session.receive_all([TELEMETRY] * 5)
    assert [size_bytes for _, size_bytes, *_ in client.stream.submitted] == [0, 0, 0, 0, 5 * len(TELEMETRY)]
    client.session.count(5)
    assert client.visit.charged == [(5, 5)]
    client.stream.refuse(JournalUnavailable("the disk is full"))
    assert [reply["code"] for reply in client.heard()] == ["journal_unavailable"] * 5


@pytest.mark.parametrize("field", ["telemetry", "control"])
def test_a_value_above_its_limit_is_refused_by_itself(field: str) -> None:
    client = Client()
    largest = client.stream.sizes.value_max_bytes

    def message(size_bytes: int) -> bytes:
        if field == "telemetry":
            return b'{"type":"telemetry","id":1,"device_id":"lamp","value":"%b"}' % (b"x" * (size_bytes - 2))
        return b'{"type":"control","id":1,"target":"a","command":"b","args":{"x":"%b"}}' % (b"x" * (size_bytes - 8))

    [error] = client.says(message(largest + 1))
    assert (error["code"], error["id"], error["retryable"]) == ("too_large", 1, False)
    assert client.says(message(largest)) == []
    assert len(client.stream.submitted) == 1


def test_a_ping_is_answered_by_a_pong() -> None:
    assert Client().says(b'{"type":"ping"}') == [
        {"type": "pong", "timestamp_utc": NOW_UTC, "epoch": "epoch-1", "seq": 0}
    ]


def test_every_type_of_message_that_is_checked_does_something() -> None:
    assert set(ACTIONS) == set(CHECKS)


@pytest.mark.parametrize("payload", [b'{"type":"dance","x":[1,{"y":null}]}', b"{}", b'{"type":3,"device_id":4}'])
def test_a_message_of_an_unknown_type_is_echoed(payload: bytes) -> None:
    assert Client().says(payload) == [
        {
            "type": "echo",
            "timestamp_utc": NOW_UTC,
            "received": json.loads(payload),
            "note": "Unrecognized message type",
        }
    ]


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"hello", "malformed_json"),
        (b"[]", "validation_failed"),
        (b'{"type":"telemetry","device_id":"lamp"}', "validation_failed"),
        (b'{"type":"telemetry","device_id":5,', "malformed_json"),
        (b'{"type":"telemetry","device_id":"lamp","value":' + b"[" * 40 + b"]" * 40 + b"}", "too_large"),
    ],
    ids=["not json", "not an object", "no value", "wrong type and cut off", "too deep"],
)
def test_a_bad_message_is_answered_and_the_conversation_goes_on(payload: bytes, code: str) -> None:
    client = Client()
    [error] = client.says(payload)
    assert (error["type"], error["code"], error["retryable"]) == ("error", code, False)
    assert client.stream.submitted == []
    assert client.says(b'{"type":"ping"}')[0]["type"] == "pong"
    assert client.connection.closed_with == []


def test_the_error_that_answers_a_refused_message_echoes_its_id() -> None:
    [error] = Client().says(b'{"type":"telemetry","id":3,"device_id":"","value":1}')
    assert (error["code"], error["id"]) == ("validation_failed", 3)


def test_what_is_not_even_a_message_is_refused_and_the_conversation_goes_on() -> None:
    client = Client()
    client.session.refuse(UnsupportedMedia("text, please"))
    assert [error["code"] for error in client.heard()] == ["unsupported_media_type"]
    assert client.says(b'{"type":"ping"}')


def test_a_client_that_keeps_up_is_given_the_very_cast_that_all_get() -> None:
    client = Client()
    client.stream.change("lamp", b"1")
    client.stream.change("lamp", b"2")
    assert [event["value"] for event in client.heard()] == [1, 2]


def test_a_paused_client_gets_only_the_newest_value_per_device() -> None:
    client = Client()
    client.session.pause()
    for value in (b"1", b"2", b"3"):
        client.stream.change("lamp", value)
    client.stream.change("door", b'"open"')
    assert client.heard() == []
    client.session.resume()
    lamp, origin_policy = client.heard()
    assert (lamp["value"], lamp["merged"], lamp["seq"]) == (3, 3, 3)
    assert (origin_policy["value"], origin_policy["seq"], "merged" in origin_policy) == ("open", 4, False)


def test_a_paused_client_gets_every_command_and_answer() -> None:
    client = Client()
    client.session.pause()
    client.says(b'{"type":"control","target":"lamp","command":"on","id":1}')
    client.says(b'{"type":"control","target":"lamp","command":"on","id":2}')
    client.stream.commit()
    client.says(b'{"type":"ping"}')
    client.session.resume()
    heard = client.heard()
    assert [message["type"] for message in heard] == ["control", "control", "ack", "ack", "pong"]
    assert [message["id"] for message in heard[2:4]] == [1, 2]


def test_a_client_that_caught_up_gets_everything_as_it_comes_again() -> None:
    client = Client()
    client.session.pause()
    client.stream.change("lamp", b"1")
    client.session.resume()
    client.heard()
    client.stream.change("lamp", b"2")
    client.stream.change("lamp", b"3")
    assert [event["value"] for event in client.heard()] == [2, 3]


def test_a_large_queue_is_drained_in_pieces_that_the_connection_may_stop() -> None:
    client = Client(StallingConnection(writes_until_full=1), outbox_max_bytes=10**9)
    client.session.pause()
    for number in range(20):
        client.stream.change(f"device {number}", b'"%b"' % (b"x" * 60_000))
    assert client.heard() == []
    pieces: list[list[str]] = []
    for _ in range(20):
        client.session.resume()
        pieces.append([event["device_id"] for event in client.heard()])
    assert sum(map(bool, pieces)) == 4
    assert [device for piece in pieces for device in piece] == [f"device {number}" for number in range(20)]


def test_what_comes_while_a_queue_is_drained_waits_behind_it() -> None:
    client = Client(StallingConnection(writes_until_full=1), outbox_max_bytes=10**9)
    client.session.pause()
    for number in range(10):
        client.stream.change(f"device {number}", b'"%b"' % (b"x" * 60_000))
    client.session.resume()  # drains a part, and is paused by the connection again
    client.stream.change("newest", b"1")
    for _ in range(10):
        client.session.resume()
    assert [event["seq"] for event in client.heard()] == list(range(1, 12))


def test_a_client_that_stops_reading_is_closed_when_its_queue_passes_the_bound() -> None:
    client = Client(outbox_max_bytes=5_000)
    client.session.pause()
    for _ in range(100):
        client.stream.cast(Control("lamp", "on", Raw(b"{}"), "", "rest"))
    assert client.connection.closed_with == [
        (FellBehind.close_code, "fell_behind: more than 5000 bytes were waiting for this client; reconnect to go on")
    ]
    assert client.session.closed
    client.session.resume()
    assert client.heard() == []


def test_a_client_that_stops_reading_is_not_closed_for_changes_of_few_devices() -> None:
    client = Client(outbox_max_bytes=5_000)
    client.session.pause()
    for number in range(10_000):
        client.stream.change("lamp", b"%d" % number)
    client.session.resume()
    [event] = client.heard()
    assert (event["value"], event["merged"]) == (9_999, 10_000)


def test_a_closed_session_says_and_takes_nothing_more() -> None:
    client = Client()
    client.says(b'{"type":"telemetry","id":1,"device_id":"lamp","value":1}')
    client.session.close(Stopping("the server restarts"))
    client.session.close(TooLarge("again"))
    assert client.connection.closed_with == [(1012, "stopping: the server restarts")]
    client.stream.commit()  # casts, and acknowledges what was submitted before
    client.says(TELEMETRY)
    client.session.refuse(UnsupportedMedia("text, please"))
    client.session.pause()
    client.session.resume()
    assert (client.heard(), client.stream.submitted) == ([], [])
    assert len(client.connection.closed_with) == 1


steps = st.lists(
    st.one_of(
        st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=4),
        st.sampled_from(["ping", "pause", "resume"]),
    ),
    max_size=40,
)


@given(steps, st.integers(1, 4))
@settings(max_examples=300)
def test_however_a_client_stalls_it_ends_with_the_state_and_missed_nothing(
    script: list[list[str | None] | str], writes_until_full: int
) -> None:
    client = Client(StallingConnection(writes_until_full), outbox_max_bytes=10**9)
    changes: Counter[str] = Counter()
    commands: list[int] = []
    pings = 0
    for step in script:
        if step == "pause":
            client.session.pause()
        elif step == "resume":
            client.session.resume()
        elif step == "ping":
            client.session.receive(b'{"type":"ping"}')
            pings += 1
        else:
            batch: list[Entry] = []
            for seq, device_id in enumerate(step, client.stream.state.seq + 1):
                if device_id is None:
                    batch.append(Control("x", "on", Raw(b"{}"), "", "rest"))
                    commands.append(seq)
                else:
                    batch.append(DataUpdate(device_id, Raw(b"%d" % seq), "", "rest"))
                    changes[device_id] += 1
            client.stream.cast(*batch)
    client.session.resume()
    client.session.resume()  # a connection that filled up while the queue was drained
    heard = client.heard()
    updates = [message for message in heard if message["type"] == "data_update"]
    entries = [message["seq"] for message in heard if message["type"] in {"data_update", "control"}]
    assert entries == sorted(set(entries))
    assert {event["device_id"]: event["value"] for event in updates} == {
        device_id: int(bytes(twin.value)) for device_id, twin in client.stream.state.twins.items()
    }
    counted: Counter[str] = Counter()
    for event in updates:
        counted[event["device_id"]] += event.get("merged", 1)
    assert counted == changes
    assert [message["seq"] for message in heard if message["type"] == "control"] == commands
    assert sum(message["type"] == "pong" for message in heard) == pings


def test_changes_of_a_subscription_wait_within_a_bound_until_the_client_has_caught_up() -> None:
    client = Client(outbox_max_bytes=1 << 20)
    client.session.pause()
    client.stream.change("lamp", b"1")
    for number in range(1_050):
        client.session.receive(b'{"type":"subscribe","id":%d,"devices":["d%d"]}' % (number, number % 10))
    client.session.resume()
    heard = client.heard()
    assert sum(message["type"] == "error" and message["code"] == "too_large" for message in heard) == 50
    assert [message["id"] for message in heard if message["type"] == "ack"] == list(range(1_000))


def test_changes_of_a_subscription_that_wait_are_bounded_in_bytes_too() -> None:
    client = Client(outbox_max_bytes=65_536)
    client.session.pause()
    client.stream.change("lamp", b"1")
    for number in range(20):
        client.session.receive(b'{"type":"subscribe","id":%d,"devices":["%s"]}' % (number, b"d" * 250) + b" " * 6_000)
    client.session.resume()
    acknowledged = [message["id"] for message in client.heard() if message["type"] == "ack"]
    assert acknowledged == list(range(10)), "of 6 KB each"


def test_a_burst_of_costly_changes_is_made_a_few_in_a_turn_in_order_and_none_is_lost() -> None:
    client = Client(outbox_max_bytes=1 << 20)
    names = ",".join(f'"{"p" * 50}{number}"' for number in range(500))
    client.says(b'{"type":"subscribe","devices":[%b]}' % names.encode())
    for _ in range(10):
        client.stream.pass_time(0)
    client.heard()
    for number in range(100):
        client.session.receive(b'{"type":"subscribe","id":%d,"max_hz":%f}' % (number, 1 + number / 100))
    told: list[int] = []
    while len(told) < 100:
        before = len(told)
        told += [message["id"] for message in client.heard() if message["type"] == "ack"]
        assert len(told) - before <= 1, "each of them finds its place among those of all clients anew"
        client.stream.pass_time(0)
    assert told == list(range(100))


@pytest.mark.parametrize("mode", ["latest", "every"])
def test_a_server_that_stops_sends_the_queued_replies_and_leaves_entries_to_clients_that_resume(mode: str) -> None:
    client = Client()
    client.says(b'{"type":"subscribe","devices":["*"],"mode":"%b"}' % mode.encode())
    client.session.pause()
    assert client.says(b'{"type":"telemetry","id":1,"device_id":"lamp","value":1}') == []
    assert client.says(b'{"type":"control","id":2,"target":"fan","command":"on"}') == []
    client.stream.commit()
    client.session.stop(Stopping("the server is restarting"))
    assert [(each["type"], each["id"], each["seq"]) for each in client.heard()] == [("ack", 1, 1), ("ack", 2, 2)]
    assert client.connection.closed_with == [(1012, "stopping: the server is restarting")]


# Who it is.

LAB = Rights.of({"read": ["lab/*"], "publish": ["lab/*"]})
KNOWN = {
    "good": Principal("jwt:alice", LAB, expires_s=10.0),
    "new": Principal("jwt:alice", LAB, expires_s=20.0),
    "other's": Principal("jwt:bob", LAB),
}


class Stranger(Client):
    """A session on a server with a login; it has been asked who it is."""

    def __init__(self) -> None:
        self.stream = CommittingStream()
        self.stream.change("lab/lamp", b"1")
        self.stream.change("home/lamp", b"2")
        self.connection = RecordingConnection()
        self.leases: list[KeyedVisit] = []
        self.session = Session(self.connection, self.stream, self._enter, outbox_max_bytes=OUTBOX_MAX_BYTES)
        self.session.begin("devices=*/lamp")

    def _enter(self, end: Any) -> KeyedVisit:
        self.leases.append(KeyedVisit(end, KNOWN))
        return self.leases[-1]

    def presents(self, token: str, message_id: int | None = None) -> list[Any]:
        message = {"type": "auth", "token": token} | ({} if message_id is None else {"id": message_id})
        return self.says(json.dumps(message).encode())


def test_a_client_is_greeted_as_its_address_asked_once_it_has_said_who_it_is() -> None:
    stranger = Stranger()
    assert [message["type"] for message in stranger.heard()] == ["auth_required"]
    [hello] = stranger.presents("good")
    assert hello["data_snapshot"].keys() == {"lab/lamp"}
    assert hello["subscription"]["devices"].keys() == {"*/lamp"}


@pytest.mark.parametrize(
    "first",
    [
        b'{"type":"auth","token":"wrong"}',
        b'{"type":"auth"}',
        b'{"type":"ping"}',
        TELEMETRY,
        b"nonsense",
        b'{"type":"auth","token":"good"}' + b" " * AUTH_MAX_BYTES,
    ],
    ids=["wrong", "no token", "ping", "telemetry", "no JSON", "oversized"],
)
def test_there_is_one_try_to_say_who_one_is(first: bytes) -> None:
    stranger = Stranger()
    stranger.heard()
    [error] = stranger.says(first)
    assert error["type"] == "error"
    assert [code >= 4500 for code, _ in stranger.connection.closed_with] == [True]
    assert stranger.leases[0].has_left
    assert stranger.presents("good") == []
    assert stranger.leases[0].principal is None


def test_the_first_message_takes_eight_kibibytes() -> None:
    assert AUTH_MAX_BYTES == 8 * 1024
    stranger = Stranger()
    stranger.heard()
    message = b'{"type":"auth","token":"good"}'
    [hello] = stranger.says(message + b" " * (AUTH_MAX_BYTES - len(message)))
    assert hello["type"] == "hello"


def test_a_binary_frame_is_no_way_to_say_who_one_is() -> None:
    stranger = Stranger()
    stranger.session.refuse(UnsupportedMedia("binary"))
    assert [code for code, _ in stranger.connection.closed_with] == [4501]


def test_a_credential_is_renewed_while_the_conversation_goes_on() -> None:
    stranger = Stranger()
    stranger.presents("good")
    stranger.heard()
    assert stranger.presents("new", 7) == [{"type": "ack", "id": 7, "epoch": "epoch-1", "seq": 2}]
    assert stranger.leases[0].principal is KNOWN["new"]
    assert stranger.presents("good") == []  # without an id there is no answer
    assert stranger.leases[0].principal is KNOWN["good"]
    stranger.stream.change("lab/lamp", b"3")
    stranger.stream.change("home/lamp", b"4")
    assert [event["device_id"] for event in stranger.heard()] == ["lab/lamp"]


@pytest.mark.parametrize(("token", "code"), [("wrong", "unauthenticated"), ("other's", "not_permitted")])
def test_a_renewal_that_is_refused_is_answered_and_changes_nothing(token: str, code: str) -> None:
    stranger = Stranger()
    stranger.presents("good")
    stranger.heard()
    [error] = stranger.presents(token, 7)
    assert (error["type"], error["code"], error["id"]) == ("error", code, 7)
    assert stranger.leases[0].principal is KNOWN["good"]
    assert not stranger.session.closed
    stranger.stream.change("lab/lamp", b"3")
    assert [event["device_id"] for event in stranger.heard()] == ["lab/lamp"]


def test_rights_are_asked_for_after_a_renewal_as_before() -> None:
    stranger = Stranger()
    stranger.presents("good")
    stranger.presents("new")
    stranger.heard()
    [error] = stranger.says(b'{"type":"control","target":"lab/lamp","command":"on","id":1}')
    assert error["code"] == "not_permitted"
    stranger.says(b'{"type":"telemetry","device_id":"lab/lamp","value":1}')
    assert len(stranger.stream.submitted) == 1


def test_two_identities_may_use_the_same_update_id() -> None:
    message = b'{"type":"telemetry","device_id":"lab/lamp","value":1,"update_id":"u"}'
    keys = []
    for who in ("jwt:alice", "jwt:bob", "anonymous"):
        client, stream = RecordingConnection(), CommittingStream()
        enter = partial(AnyonesVisit, principal=Principal(who))
        Session(client, stream, enter, outbox_max_bytes=OUTBOX_MAX_BYTES).receive(message)
        [(_, _, _, key)] = stream.submitted
        assert key is not None
        keys.append(key.key)
    assert len(set(keys)) == 3


# Numbered lines.

LINE = b'{"type":"telemetry","id":5,"device_id":"lamp","value":1,"producer":"p","line":17}'


def test_a_numbered_line_is_the_identitys_and_is_acknowledged_like_any_update() -> None:
    client = an_ordered_client()
    assert client.says(LINE) == []
    [line] = client.stream.lines
    assert (line.identity, line.producer, line.number) == ("", "p", 17)
    client.stream.commit()
    assert client.heard()[-1] == {"type": "ack", "id": 5, "epoch": "epoch-1", "seq": 1}


def test_one_that_is_stored_already_is_told_up_to_which_all_are_and_where_that_is() -> None:
    client = an_ordered_client()
    client.says(LINE)
    client.stream.lines[0].again(ProducerMark("", "p", 20, 7))
    ack = {"type": "ack", "id": 5, "epoch": "epoch-1", "seq": 7, "replayed": True, "line": 20}
    assert client.heard() == [ack]


def test_where_no_order_was_asked_for_there_are_no_numbered_lines() -> None:
    [error] = Client().says(LINE)
    assert (error["code"], error["id"], "ordered=1" in error["message"]) == ("validation_failed", 5, True)


def test_a_numbered_line_takes_the_rights_that_every_update_takes() -> None:
    connection, stream = RecordingConnection(), CommittingStream()
    may_read = Principal("key:reader", Rights.of({"read": ["*"]}))
    session = Session(connection, stream, partial(AnyonesVisit, principal=may_read), outbox_max_bytes=OUTBOX_MAX_BYTES)
    session.begin("ordered=1")
    connection.taken()
    session.receive(LINE)
    assert [json.loads(message)["code"] for message in connection.taken()] == ["not_permitted"]
    assert stream.submitted == []


def test_a_line_that_was_not_stored_holds_back_the_later_ones() -> None:
    client = an_ordered_client()
    client.says(LINE)
    client.stream.refuse(JournalUnavailable("the disk is full"))
    client.heard()
    [error] = client.says(LINE.replace(b"17", b"18"))
    assert error["code"] == "out_of_order"
    assert len(client.stream.lines) == 1
