"""NATS's subjects beside a log: what goes out, what comes in, and the one server that acts for all; at a real NATS."""

import asyncio
import json
import re
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import pytest
from msgspec import Raw
from nats.aio.client import Client
from nats.errors import NoRespondersError

from tests.client.node_client import node
from tests.client.npm import NATS_PACKAGES, node_modules
from tests.credentials import NOW_UTC
from tests.fakes import LONG_S
from tests.running import ROOT
from tests.transports.conftest import Place
from twincast.access.keys import make_key
from twincast.cluster.engine import Engine
from twincast.core.keys import Key, Keyring
from twincast.core.model import Control, DataUpdate, Deleted, Entry
from twincast.core.peers import NOTHING_SENT
from twincast.core.rights import Rights
from twincast.errors import JournalUnavailable, TwincastError
from twincast.journal.jetstream.address import NatsAddress
from twincast.journal.jetstream.link import Link
from twincast.transports.nats import Counters, incoming, outgoing, serving
from twincast.transports.nats.bridge import Bridge
from twincast.transports.nats.incoming import Incoming
from twincast.transports.nats.outgoing import Outgoing
from twincast.transports.nats.outlet import Outlet
from twincast.wire.messages import encode

ALL = {"publish": ["*"], "read": ["*"], "command": ["*"]}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine(tmp_path_factory.mktemp("nats"), asks_token=False) as engine:
        yield engine


@pytest.fixture
async def client(engine: Engine) -> AsyncIterator[Client]:
    client = await nats.connect(engine.url)
    yield client
    await client.close()


def key(name: str = "bus", *, rate_per_s: float | None = None, **grants: list[str]) -> Key:
    made, _ = make_key(name, Rights.of(grants or ALL), now_utc=NOW_UTC, rate_per_s=rate_per_s, expires_s=None)
    return made


def revoked(key: Key) -> Key:
    return Key(key.id, key.name, key.digest, key.grants, key.created_at_utc, revoked_at_utc=NOW_UTC)


def let_in(place: Place, *keys: Key) -> None:
    place.admission.learn(Keyring(place.admission.authenticator.version + 1, keys))


class Turns:
    """Which server is the first, and what the others have said that they sent: a live list in the test's hands."""

    def __init__(self, *, is_first: bool = True) -> None:
        self.is_first = is_first
        self.sent = NOTHING_SENT


@asynccontextmanager
async def bridged(engine: Engine, place: Place, turns: Turns | None = None) -> AsyncIterator[Bridge]:
    """Serve the subjects of the log `lab` as one server does."""
    turns = turns or Turns()
    link = await Link.connect(NatsAddress.parse(f"{engine.url}/lab"))
    bridge = Bridge(
        link,
        place.hub,
        place.admission,
        name="lab",
        key_name="bus",
        is_first=lambda: turns.is_first,
        sent=lambda: turns.sent,
        look_s=0.001,
    )
    running = asyncio.create_task(bridge.run())
    try:
        yield bridge
    finally:
        running.cancel()
        await asyncio.wait([running])
        await link.close()
        assert running.cancelled(), running.exception()


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(LONG_S):
        while not condition():  # noqa: ASYNC110  # NATS, and those who look, set no event for it
            await asyncio.sleep(0.001)


async def served(client: Client) -> None:
    """Wait until somebody takes what comes in."""
    async with asyncio.timeout(LONG_S):
        while True:
            try:
                await client.request("twincast.lab.publish.%", b"", timeout=LONG_S)
            except NoRespondersError:
                await asyncio.sleep(0.001)
            else:
                return


async def ask(client: Client, subject: str, payload: bytes, key: str = "") -> Any:
    """Send a reading or command and return the answer."""
    headers = {"Nats-Msg-Id": key} if key else None
    answer = await client.request(f"twincast.lab.{subject}", payload, timeout=LONG_S, headers=headers)
    return json.loads(answer.data)


async def log(place: Place) -> list[Entry]:
    return list(await place.hub.read(0, 100_000))


async def store(place: Place, *entries: Entry) -> None:
    stored: asyncio.Queue[TwincastError | None] = asyncio.Queue()
    place.hub.submit_all(entries, 1, lambda error, _seq: stored.put_nowait(error))
    assert await asyncio.wait_for(stored.get(), LONG_S) is None


def reading(number: int, device: str = "lamp") -> DataUpdate:
    return DataUpdate(device, Raw(b"%d" % number), "", "rest")


class Listener:
    """A NATS client that listens on everything that goes out."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, dict[str, Any]]] = []

    @classmethod
    async def on(cls, client: Client, *subjects: str) -> "Listener":
        listener = cls()

        async def hear(message: Any) -> None:
            listener.heard.append((message.subject, json.loads(message.data)))

        for subject in subjects or ("twincast.lab.data.>", "twincast.lab.control.>"):
            await client.subscribe(subject, cb=hear)
        await client.flush()
        return listener

    @property
    def seqs(self) -> list[int]:
        return [event["seq"] for _, event in self.heard]

    async def until(self, seq: int) -> None:
        await until(lambda: seq in self.seqs)


async def test_every_entry_goes_out_as_watchers_receive_it(engine: Engine, place: Place, client: Client) -> None:
    let_in(place, key())
    listener = await Listener.on(client)
    async with bridged(engine, place) as bridge:
        await until(lambda: bridge.sent_seq == place.hub.state.seq)
        await store(place, reading(1, "lab/a b"), Control("lab/fan", "stop", Raw(b"{}"), "", "websocket"))
        await store(place, Deleted("lab/a b", "", "rest"))
        await listener.until(3)
        events = [json.loads(encode(entry)) for entry in await log(place)]
        subjects = ["twincast.lab.data.lab.a%20b", "twincast.lab.control.lab.fan", "twincast.lab.data.lab.a%20b"]
        heard = sorted(listener.heard, key=lambda each: each[1]["seq"])  # order holds in each of its subscriptions
        assert heard == list(zip(subjects, events, strict=True))
        assert [event["type"] for event in events] == ["data_update", "control", "deleted"]
        assert {event["epoch"] for event in events} == {place.hub.state.epoch}
        await until(lambda: bridge.sent_seq == 3)
        assert bridge.counters.sent == 3


async def test_a_native_wildcard_selects_what_lies_below(engine: Engine, place: Place, client: Client) -> None:
    let_in(place, key())
    listener = await Listener.on(client, "twincast.lab.data.lab.>")
    async with bridged(engine, place) as bridge:
        await until(lambda: bridge.sent_seq == place.hub.state.seq)
        await store(place, reading(1, "other/t"), reading(2, "lab/t"), reading(3, "lab"), reading(4, "lab/x/*"))
        await listener.until(4)
    assert listener.seqs == [2, 4]


async def test_only_what_the_key_may_read_goes_out(engine: Engine, place: Place, client: Client) -> None:
    let_in(place, key(read=["lab/*"]))
    listener = await Listener.on(client)
    async with bridged(engine, place) as bridge:
        await until(lambda: bridge.sent_seq == place.hub.state.seq)
        await store(
            place, reading(1, "home/door"), reading(2, "lab/t"), Control("home/x", "on", Raw(b"{}"), "", "rest")
        )
        await store(place, reading(4, "lab/t"))
        await listener.until(4)
        await store(place, reading(5, "home/door"))
        await until(lambda: bridge.sent_seq == 5)  # nothing of it is for this key, so NATS has all up to there
    assert listener.seqs == [2, 4]


async def test_a_key_that_may_read_nothing_sends_nothing(engine: Engine, place: Place, client: Client) -> None:
    let_in(place, key(publish=["*"]))
    listener = await Listener.on(client)
    async with bridged(engine, place) as bridge:
        await served(client)
        assert (await ask(client, "publish.lamp", b"1"))["ok"]
        assert (bridge.counters.sent, listener.heard) == (0, [])


async def test_a_reading_that_comes_in_is_stored_and_answered(engine: Engine, place: Place, client: Client) -> None:
    let_in(place, key())
    async with bridged(engine, place) as bridge:
        await served(client)
        receipt = await ask(client, "publish.lab.caf%C3%A9", b' {"c": 21.5} \n')
        assert receipt == {"ok": True, "epoch": place.hub.state.epoch, "seq": 1}
        (entry,) = await log(place)
        assert isinstance(entry, DataUpdate)
        assert (entry.device_id, bytes(entry.value), entry.source) == ("lab/café", b'{"c":21.5}', "nats")
        assert bridge.counters.taken == 1


async def test_a_reading_may_say_when_it_was_measured_and_a_late_one_has_a_subject_of_its_own(
    engine: Engine, place: Place, client: Client
) -> None:
    let_in(place, key())
    listener = await Listener.on(client, "twincast.lab.data.>", "twincast.lab.late.>")
    async with bridged(engine, place) as bridge:
        await served(client)
        await until(lambda: bridge.sent_seq == place.hub.state.seq)
        for n, measured in enumerate(["2026-11-27T04:16:10Z", "2026-11-27T04:16:09Z", "yesterday", ""]):
            headers = {"Measured-At-Utc": measured} if measured else None
            subject = "twincast.lab.publish.lamp"
            answer = await client.request(subject, b"%d" % n, timeout=LONG_S, headers=headers)
            assert json.loads(answer.data).get("code") == ("bad_time" if n == 2 else None)
        await listener.until(3)
        heard = sorted(listener.heard, key=lambda each: each[1]["seq"])
        assert [(subject.removeprefix("twincast.lab."), event["type"], event["value"]) for subject, event in heard] == [
            ("data.lamp", "data_update", 0),
            ("late.lamp", "late", 1),
            ("data.lamp", "data_update", 3),
        ]
        assert heard[1][1]["measured_at_utc"] == "2026-11-27T04:16:09.000000+00:00"
        assert [json.loads(encode(entry)) for entry in await log(place)] == [event for _, event in heard]


async def test_a_command_that_comes_in_is_stored_and_audited(engine: Engine, place: Place, client: Client) -> None:
    bus = key()
    let_in(place, bus)
    async with bridged(engine, place):
        await served(client)
        assert (await ask(client, "command.lab.fan", b'{"command": "set", "args": {"rpm": 900}}'))["seq"] == 1
        assert (await ask(client, "command.lab.fan", b'{"command": "stop"}'))["seq"] == 2
    first, second = await log(place)
    assert isinstance(first, Control) and isinstance(second, Control)
    assert (first.target, first.command, bytes(first.args), first.source) == ("lab/fan", "set", b'{"rpm":900}', "nats")
    assert bytes(second.args) == b"{}"
    trail = await place.parts().access.audit(10)
    assert [(record.who, record.address, record.action) for _, record in trail] == [
        (f"key:{bus.id}", "nats", "command")
    ] * 2


async def test_a_sender_that_wants_no_answer_is_stored_too(engine: Engine, place: Place, client: Client) -> None:
    let_in(place, key())
    async with bridged(engine, place) as bridge:
        await served(client)
        for number in range(500):
            await client.publish("twincast.lab.publish.lamp", b"%d" % number)
        await until(lambda: place.hub.state.seq == 500)
        assert [bytes(entry.payload) for entry in await log(place)] == [b"%d" % number for number in range(500)]
        untold = bridge.counters.untold
        await client.publish("twincast.lab.publish.lamp", b"{")
        await until(lambda: bridge.counters.untold == untold + 1)


DEEP = b"[" * 33 + b"]" * 33


@pytest.mark.parametrize(
    "case",
    [
        ("publish.lamp", b"", "malformed_json"),
        ("publish.lamp", b"{", "malformed_json"),
        ("publish.lamp", b"1 2", "malformed_json"),
        ("publish.lamp", b'"\xff"', "malformed_json"),
        ("publish.lamp", b'{"a":1,"a":2}', "malformed_json"),
        ("publish.lamp", b"123456789012345678901234567890", "malformed_json"),
        ("publish.lamp", b"[" * 100_000, "too_large"),
        ("publish.lamp", DEEP, "too_large"),
        ("publish.lamp", b'"' + b"x" * 64_600 + b'"', "too_large"),
        ("publish.lamp", b'"' + b"x" * 500_000 + b'"', "too_large"),
        ("publish.%41", b"1", "validation_failed"),
        ("publish.%", b"1", "validation_failed"),
        ("publish.a%0Ab", b"1", "validation_failed"),
        ("publish." + "x" * 129, b"1", "validation_failed"),
        ("command.fan", b"1", "validation_failed"),
        ("command.fan", b"{}", "validation_failed"),
        ("command.fan", b'{"command":1}', "validation_failed"),
        ("command.fan", b'{"command":"on","args":[]}', "validation_failed"),
        ("command.fan", b'{"command":"on","command":"off"}', "malformed_json"),
        ("command.fan", b'{"command":"on","args":{"a":%s}}' % DEEP, "too_large"),
    ],
)
async def test_what_cannot_be_taken_is_answered_with_the_problem(
    engine: Engine, place: Place, client: Client, case: tuple[str, bytes, str]
) -> None:
    let_in(place, key())
    subject, payload, code = case
    async with bridged(engine, place):
        await served(client)
        problem = await ask(client, subject, payload)
        assert (problem["code"], problem["retryable"]) == (code, False)
        assert problem["status"] >= 400
        assert problem["detail"]
    assert await log(place) == []


async def test_the_rights_of_the_key_hold(engine: Engine, place: Place, client: Client) -> None:
    let_in(place, key(publish=["lab/*"], command=["fan"]))
    async with bridged(engine, place):
        await served(client)
        assert (await ask(client, "publish.lab.t", b"1"))["ok"]
        assert (await ask(client, "publish.home.t", b"1"))["code"] == "not_permitted"
        assert (await ask(client, "command.fan", b'{"command":"on"}'))["ok"]
        assert (await ask(client, "command.lab.t", b'{"command":"on"}'))["code"] == "not_permitted"


async def test_the_rate_of_the_key_holds(engine: Engine, place: Place, client: Client) -> None:
    let_in(place, key(rate_per_s=0.001))
    async with bridged(engine, place):
        await served(client)
        answers = [await ask(client, "publish.lamp", b"1") for _ in range(3)]
        assert answers[0]["ok"]
        assert [(each["code"], each["status"], each["retryable"]) for each in answers[1:]] == [
            ("rate_limited", 429, True)
        ] * 2
    assert len(await log(place)) == 1


async def test_a_revoked_key_stops_both_ways_at_once_and_a_new_one_of_its_name_goes_on(
    engine: Engine, place: Place, client: Client
) -> None:
    bus, other = key(), key("other")
    let_in(place, bus, other)
    listener = await Listener.on(client)
    async with bridged(engine, place) as bridge:
        await served(client)
        await until(lambda: bridge.sent_seq == place.hub.state.seq)
        let_in(place, revoked(bus), other)
        await store(place, reading(1, "lab/t"))
        assert (await ask(client, "publish.lamp", b"2"))["code"] == "credential_expired"
        assert len(await log(place)) == 1
        await until(lambda: bridge.sent_seq == 1)  # not sent, and not owed to a later key
        let_in(place, revoked(bus), other, key(publish=["*"], read=["lab/*"]))
        assert (await ask(client, "publish.lab.t", b"3"))["ok"]
        await listener.until(2)
        assert listener.seqs == [2]


async def test_without_the_key_nothing_is_taken(engine: Engine, place: Place, client: Client) -> None:
    async with bridged(engine, place):
        await served(client)
        assert (await ask(client, "publish.lamp", b"1"))["code"] == "unauthenticated"
        let_in(place, key("other"))
        assert (await ask(client, "publish.lamp", b"1"))["code"] == "unauthenticated"
        place.admission.authenticator.doubt = "the keys cannot be read"
        let_in(place, key())
        assert (await ask(client, "publish.lamp", b"1"))["code"] == "journal_unavailable"
    assert await log(place) == []


async def test_a_retry_is_stored_once(engine: Engine, place: Place, client: Client) -> None:
    let_in(place, key())
    async with bridged(engine, place):
        await served(client)
        first = await ask(client, "publish.lamp", b"1", "k1")
        assert (await ask(client, "publish.lamp", b"1", "k1")) == {**first, "replayed": True}
        assert (await ask(client, "publish.lamp", b"2", "k1"))["code"] == "key_reused"
        assert (await ask(client, "publish.other", b"1", "k1"))["seq"] == 2  # the scope is one device
        assert (await ask(client, "command.lamp", b'{"command":"on"}', "k1"))["seq"] == 3
        assert (await ask(client, "command.lamp", b'{"command":"on"}', "k1"))["replayed"]
        assert (await ask(client, "publish.lamp", b"1", "x" * 129))["code"] == "validation_failed"
    assert len(await log(place)) == 3


async def test_no_answer_goes_where_a_publisher_has_no_right_to_publish(
    engine: Engine, place: Place, client: Client
) -> None:
    let_in(place, key())
    stream = client.jetstream()
    await stream.add_stream(name="precious", subjects=["precious"])
    await stream.publish("precious", b"kept")
    heard = await Listener.on(client, "orders.>", "twincast.lab.log")
    async with bridged(engine, place) as bridge:
        await served(client)
        for reply in ("$JS.API.STREAM.PURGE.precious", "twincast.lab.log", "orders.new"):
            await client.publish("twincast.lab.publish.lamp", b"1", reply=reply)
        await until(lambda: bridge.counters.untold == 3)
        assert (await ask(client, "publish.lamp", b"2"))["seq"] == 1
    assert (await stream.stream_info("precious")).state.messages == 1
    assert heard.heard == []


async def test_one_goes_on_where_the_other_ended_without_a_gap(engine: Engine, place: Place, client: Client) -> None:
    let_in(place, key())
    listener = await Listener.on(client)
    one, other = Turns(), Turns(is_first=False)
    async with bridged(engine, place, other) as second:
        async with bridged(engine, place, one) as first:
            await until(lambda: first.sent_seq == place.hub.state.seq)
            await served(client)
            receipts = [await ask(client, "publish.lamp", b"%d" % number) for number in range(50)]
            await listener.until(50)
            await until(lambda: first.sent_seq == 50)
            other.sent = first.sent_seq
        await store(place, *map(reading, range(50, 60)))  # stored while nobody sends
        with pytest.raises(NoRespondersError):
            await ask(client, "publish.lamp", b"lost")
        assert second.counters.sent == 0
        other.is_first = True
        await served(client)
        receipts += [await ask(client, "publish.lamp", b"%d" % number) for number in range(60, 100)]
        await listener.until(100)
    assert [receipt["ok"] for receipt in receipts] == [True] * 90
    assert listener.seqs == list(range(1, 101))
    assert [event["value"] for _, event in listener.heard] == list(range(100))


async def test_of_two_that_take_themselves_for_the_first_one_gets_each_message(
    engine: Engine, place: Place, client: Client
) -> None:
    let_in(place, key())
    async with bridged(engine, place), bridged(engine, place):
        await served(client)
        await asyncio.gather(*(ask(client, f"publish.lamp{number}", b"1") for number in range(100)))
    assert place.hub.state.seq == 100


async def test_what_was_stored_while_nats_was_away_goes_out_when_it_is_back(
    tmp_path_factory: pytest.TempPathFactory, place: Place
) -> None:
    let_in(place, key())
    with Engine(tmp_path_factory.mktemp("nats"), asks_token=False) as engine:
        async with bridged(engine, place) as bridge:
            await store(place, reading(1))
            await until(lambda: bridge.sent_seq == 1)
            await asyncio.to_thread(engine.kill)
            await until(lambda: not bridge._link.is_connected)
            await store(place, reading(2))
            await asyncio.to_thread(engine.start)
            client = await nats.connect(engine.url)
            listener = await Listener.on(client)
            await served(client)
            await store(place, reading(3))
            await listener.until(3)
            assert sorted(set(listener.seqs)) in ([2, 3], [3])  # what went out before the listener was back is lost
            await until(lambda: bridge.sent_seq == 3)
            assert bridge.counters.passed_over == 0
            await client.close()


NODE_PROGRAM = """
import { headers } from "@nats-io/transport-node";
const heard = [];
const all = nats.subscribe("twincast.lab.*.>", { callback: (_, message) => {
  if (!/[.](publish|command)[.]/.test(message.subject)) heard.push([message.subject, message.json()]);
} });
await nats.flush();
const ask = async (subject, payload, id) => {
  const how = { timeout: 30000 };
  if (id) (how.headers = headers()).set("Nats-Msg-Id", id);
  return (await nats.request(`twincast.lab.${subject}`, payload, how)).json();
};
const answers = [
  await ask("publish.lab.caf%C3%A9", '{"c": 1}', "one"),
  await ask("publish.lab.caf%C3%A9", '{"c": 1}', "one"),
  await ask("command.lab.fan", '{"command":"set_speed","args":{"rpm":900}}'),
  await ask("publish.home.door", "1"),
  await ask("publish.lab.t", "{"),
];
for (let number = 0; number < 100; number += 1) nats.publish("twincast.lab.publish.lab.many", String(number));
while (heard.length < 102) await new Promise((resolve) => setTimeout(resolve, 1));
console.log(JSON.stringify({ answers, heard }));
await nats.close();
"""


async def test_a_client_of_another_language_does_both_ways(
    engine: Engine, place: Place, client: Client, tmp_path: Path
) -> None:
    """Begins with the example of docs/nats.md."""
    let_in(place, key(publish=["lab/*"], read=["*"], command=["*"]))
    (tmp_path / "node_modules").symlink_to(node_modules(NATS_PACKAGES))
    (example,) = re.findall(r"```js\n(.*?)```", (ROOT / "docs" / "nats.md").read_text(), re.DOTALL)
    program = tmp_path / "program.mjs"
    program.write_text(example.replace("127.0.0.1:4222", f"127.0.0.1:{engine.port}") + NODE_PROGRAM)
    async with bridged(engine, place) as bridge:
        await served(client)
        await until(lambda: bridge.sent_seq == 0)
        ran = await asyncio.create_subprocess_exec(node(), str(program), stdout=PIPE, stderr=PIPE)
        printed, errors = await asyncio.wait_for(ran.communicate(), LONG_S)
        assert ran.returncode == 0, errors.decode()
    *example_told, last = printed.decode().splitlines()
    assert "lab/thermometer 21.5 1" in example_told
    told = json.loads(last)
    stored, again, commanded, forbidden, malformed = told["answers"]
    assert stored == {"ok": True, "epoch": place.hub.state.epoch, "seq": 2}
    assert again == {**stored, "replayed": True}
    assert commanded["seq"] == 3
    assert (forbidden["code"], malformed["code"]) == ("not_permitted", "malformed_json")
    entries = (await log(place))[1:]
    assert [event for _, event in told["heard"]] == [json.loads(encode(entry)) for entry in entries]
    assert [event["value"] for _, event in told["heard"][2:]] == list(range(100))
    assert [subject for subject, _ in told["heard"][:3]] == [
        *("twincast.lab.data.lab.caf%C3%A9", "twincast.lab.control.lab.fan", "twincast.lab.data.lab.many"),
    ]


class Servers:
    """The servers on a log, of which this one is the first."""

    def __init__(self) -> None:
        self.is_first = True
        self.sent = NOTHING_SENT
        self.sent_here: Callable[[], int] = lambda: NOTHING_SENT


async def test_a_server_that_cannot_connect_tries_again_and_tells_the_others_how_far_it_is(
    engine: Engine, place: Place, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "AGAIN_S", 0.001)
    let_in(place, key())
    tries = [JournalUnavailable("nobody answers"), JournalUnavailable("nobody answers")]

    async def connect() -> Link:
        if tries:
            raise tries.pop()
        return await Link.connect(NatsAddress.parse(f"{engine.url}/lab"))

    parts, servers = place.parts(), Servers()
    running = asyncio.create_task(serving.serve(parts, connect, servers, name="lab", key_name="bus"))
    await served(client)
    assert (await ask(client, "publish.lamp", b"1"))["ok"]
    await until(lambda: servers.sent_here() == 1)
    assert parts.nats is not None and parts.nats.taken == 1
    running.cancel()
    await asyncio.wait([running])
    assert not parts.nats
    assert servers.sent_here() == NOTHING_SENT
    with pytest.raises(NoRespondersError):
        await ask(client, "publish.lamp", b"1")


class SlowLink:
    """A connection whose NATS says only when the test wants that it has something."""

    def __init__(self) -> None:
        self.on_connection: list[Callable[[bool], None]] = []
        self.is_connected = True
        self.max_payload_bytes = 1 << 20
        self.lines = bytearray()
        self.has_everything = asyncio.Event()

    def send(self, lines: bytes) -> None:
        if not self.is_connected:
            raise JournalUnavailable("it is away")
        self.lines += lines

    async def confirm(self) -> None:
        await self.has_everything.wait()
        if not self.is_connected:
            raise JournalUnavailable("it is away")

    async def subscribe(self, subject: str, take: Callable[..., Awaitable[None]], *, queue: str = "") -> Any:
        raise NotImplementedError

    def lose(self) -> None:
        self.is_connected = False
        for tell in self.on_connection:
            tell(False)

    def come_back(self) -> None:
        self.is_connected = True
        for tell in self.on_connection:
            tell(True)

    @property
    def seqs(self) -> list[int]:
        return [json.loads(line)["seq"] for line in self.lines.split(b"\r\n")[1::2]]


@asynccontextmanager
async def sending(place: Place, link: SlowLink, window_bytes: int) -> AsyncIterator[tuple[Outgoing, Outlet]]:
    """Send everything to a link."""
    outlet = Outlet(link, window_bytes=window_bytes, confirm_s=0)
    out = Outgoing(place.hub, link, outlet, "twincast.lab", Counters())

    async def send() -> None:
        since = place.hub.state.seq
        while True:
            try:
                await out.run(frozenset("*"), since)
            except JournalUnavailable:
                since = out.seq
                await until(lambda: link.is_connected)

    tasks = [asyncio.create_task(outlet.run()), asyncio.create_task(send())]
    await asyncio.sleep(0)
    yield out, outlet
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_a_slow_nats_holds_up_nothing_and_gets_all_of_it_later(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outgoing, "OUTBOX_MAX_BYTES", 4_096)
    link = SlowLink()
    async with sending(place, link, 2_000) as (out, _):
        for number in range(500):
            await store(place, reading(number))  # returns although NATS takes nothing
        assert 2_000 <= len(link.lines) < 3_000
        assert out.seq == 0  # where it began
        link.has_everything.set()
        await until(lambda: out.seq == 500)
        assert link.seqs == list(range(1, 501))


async def test_what_was_not_confirmed_when_the_connection_was_lost_is_sent_again(place: Place) -> None:
    link = SlowLink()
    async with sending(place, link, 1 << 20) as (out, _):
        link.has_everything.set()
        await store(place, reading(1))
        await until(lambda: out.seq == 1)
        link.has_everything.clear()
        await store(place, reading(2), reading(3))
        assert link.seqs == [1, 2, 3]
        link.lose()
        link.has_everything.set()  # says so too late: of another connection
        link.come_back()
        await store(place, reading(4))
        await until(lambda: out.seq == 4)
        assert link.seqs == [1, 2, 3, 2, 3, 4]


async def test_what_a_lost_connection_had_is_not_taken_for_confirmed_by_the_next() -> None:
    link = SlowLink()
    outlet = Outlet(link, confirm_s=0)
    running = asyncio.create_task(outlet.run())
    outlet.begin_behind(0)
    outlet.send(b"", 1)
    await asyncio.sleep(0)  # it asks whether NATS has it
    link.lose()
    link.come_back()
    link.has_everything.set()
    outlet.send(b"PUB _INBOX.1 1\r\n1\r\n")  # an answer, which has no position
    await until(lambda: not outlet._has_sent.is_set())
    await asyncio.sleep(0.01)
    assert (outlet.confirmed_seq, outlet._unconfirmed_bytes) == (0, 0)
    outlet.send(b"", 2)
    await until(lambda: outlet.confirmed_seq == 2)
    running.cancel()
    await asyncio.wait([running])


async def test_what_nats_takes_at_no_size_is_passed_over_and_counted(place: Place) -> None:
    link = SlowLink()
    link.has_everything.set()
    link.max_payload_bytes = 300
    async with sending(place, link, 1 << 20) as (out, _):
        await store(place, reading(1), DataUpdate("lamp", Raw(b'"%b"' % (b"x" * 300)), "", "rest"), reading(3))
        await until(lambda: out.seq == 3)
        assert (link.seqs, out._counters.sent, out._counters.passed_over) == ([1, 3], 2, 1)


async def test_what_the_log_no_longer_has_is_passed_over_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outgoing, "OUTBOX_MAX_BYTES", 1_000)
    link, place = SlowLink(), Place(journal_max_bytes=10_000)
    driving = asyncio.create_task(place.hub.run())
    async with sending(place, link, 1) as (out, _):
        for number in range(1, 101):
            await store(place, reading(number))
        assert place.journal.oldest_since > 10
        link.has_everything.set()
        await store(place, reading(101))
        await until(lambda: out.seq == 101)
        assert link.seqs[0] == 1
        assert out._counters.passed_over >= place.journal.oldest_since - 10
        assert out._counters.passed_over + out._counters.sent == 101
    driving.cancel()
    await asyncio.wait([driving])


class Came:
    """A message that came by NATS."""

    def __init__(self, number: int) -> None:
        self.subject, self.data = "twincast.lab.publish.lamp", b"%d" % number
        self.reply = f"_INBOX.{number}"
        self.headers: dict[str, str] | None = None


async def test_what_comes_while_there_is_no_room_waits_in_order_up_to_a_bound(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incoming, "WAITING_MAX_BYTES", 10 * (incoming.MESSAGE_BYTES + 1))
    let_in(place, key())
    link = SlowLink()
    taking = Incoming(place.hub, place.admission, Outlet(link), "bus", Counters())
    place.hub.intake.has_room = False
    place.hub.submit(reading(0), 1, lambda _error, _seq: None)
    for number in range(1, 12):
        await taking.take_reading("twincast.lab.publish", Came(number % 10))
    place.hub.intake.has_room = True  # what waits comes first all the same
    await taking.take_reading("twincast.lab.publish", Came(2))
    await until(lambda: place.hub.state.seq == 11)
    await until(lambda: link.lines.count(b"PUB") == 12)
    assert [bytes(entry.payload) for entry in await log(place)] == [b"%d" % (number % 10) for number in range(11)]
    assert link.lines.count(b"rate_limited") == 2


async def test_a_key_that_was_revoked_while_a_reading_waited_stores_nothing(place: Place) -> None:
    bus, other = key(), key("other")
    let_in(place, bus, other)
    link = SlowLink()
    taking = Incoming(place.hub, place.admission, Outlet(link), "bus", Counters())
    place.hub.intake.has_room = False
    place.hub.submit(reading(0), 1, lambda _error, _seq: None)
    await taking.take_reading("twincast.lab.publish", Came(1))
    let_in(place, revoked(bus), other)
    await until(lambda: b"credential_expired" in link.lines)
    assert place.hub.state.seq == 1
