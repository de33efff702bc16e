"""Slow and hostile clients beside healthy ones: `scripts/attack [--seconds S] [ATTACK ...]`.

For each attack a server is started anew and asks for logins; 100 healthy clients get 400 readings a second, first calm
and then beside the attackers. Printed are the 99th percentile of both, their ratio, how much the server grew, and how
many attackers it threw out. Exit status 1 if a ratio is above 1.5, or the server grew by more than the attack's bound.

Attackers and healthy clients share the load's core and one process: what the attackers cost there counts against the
server.
"""

import argparse
import asyncio
import itertools
import json
import os
import statistics
import struct
import sys
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.loads import latency
from benchmarks.machine import LOAD_CORE, ServerProcess, allow_many_files, use_core
from benchmarks.peers import TwincastWithLogin
from benchmarks.wire import frame, handshake

RATIO_MAX = 1.5
CLIENTS, RATE_PER_S = 100, 400
ROUNDS = 3
CLOSE_OPCODE, PING_OPCODE = 0x88, 0x89
MB = 1 << 20

SYSTEM = TwincastWithLogin(rate_updates_per_s=1_000)  # the default; healthy clients and attackers have one each
ATTACKERS_HEAD = SYSTEM.head_of("attacker")
_numbers = itertools.count()


class Attacker(asyncio.Protocol):
    """A connection that says something first, something more each second, and reads or not.

    What it says more may be many things, one after another, as long as there are.
    """

    def __init__(
        self, first: bytes, again: bytes | Iterable[bytes] = b"", *, reads: bool = True, every_s: float = 1.0
    ) -> None:
        self._first, self._reads, self._every_s = first, reads, every_s
        self._again = itertools.repeat(again) if isinstance(again, bytes) else iter(again)
        self._says_more = again != b""
        self._timer: asyncio.TimerHandle | None = None
        self.transport: asyncio.Transport
        self.is_over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._first)
        if not self._reads:
            asyncio.get_running_loop().call_soon(self.transport.pause_reading)  # uvloop begins to read after this
        if self._says_more:  # not at once: what comes behind an upgrade before its answer is not read
            self._timer = asyncio.get_running_loop().call_later(self._every_s, self._go_on)

    def data_received(self, data: bytes) -> None:
        """Take it, unless this one is not to read."""
        if not self._reads:
            raise AssertionError(f"an attacker that does not read was given {len(data)} bytes")

    def connection_lost(self, error: Exception | None) -> None:
        """Note that the server had enough."""
        self.is_over = True
        if self._timer is not None:
            self._timer.cancel()

    def _go_on(self) -> None:
        if not self.transport.is_closing():
            if self.transport.get_write_buffer_size() < MB:  # it costs the load's core, where the healthy ones are
                self.transport.write(next(self._again, b""))
            self._timer = asyncio.get_running_loop().call_later(self._every_s, self._go_on)


@dataclass(frozen=True)
class Attack:
    """So many attackers, what each does, and by how much the server may grow."""

    what: str
    count: int
    attacker: Callable[[int], Attacker]
    grows_max_bytes: int
    begins_s: float = 0.0
    """How long it takes until what it does shows: until the connections of those who do not read are full."""
    devices: int = 0
    """How many there are besides those of the healthy clients, with names that are long and alike."""
    value_bytes: int = 1

    @asynccontextmanager
    async def under_way(self, port: int) -> AsyncIterator[list[Attacker]]:
        """Attack until the context ends; whoever is thrown out comes again."""
        loop = asyncio.get_running_loop()
        attackers: list[Attacker] = []
        complete = asyncio.Event()

        async def attack() -> None:
            while True:
                missing = self.count - sum(not each.is_over for each in attackers)
                for _ in range(min(missing, 200)):
                    _, attacker = await loop.create_connection(lambda: self.attacker(port), "127.0.0.1", port)
                    attackers.append(attacker)
                    if len(attackers) == self.count:
                        complete.set()
                await asyncio.sleep(0.05)

        attacking = asyncio.create_task(attack(), name="attack")
        await complete.wait()
        try:
            yield attackers
        finally:
            attacking.cancel()
            for attacker in attackers:
                attacker.transport.abort()


def _head(method: str = "GET", path: str = "/api/status", more: str = "") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{more}".encode()


def _in_turn(*kinds: Callable[[int], Attacker]) -> Callable[[int], Attacker]:
    scheduler = itertools.cycle(kinds)

    def attacker(port: int) -> Attacker:
        return next(scheduler)(port)

    return attacker


def _bomb() -> bytes:
    """Return a frame that says it is compressed: a few KB that would become 4 MiB."""
    squeezed = zlib.compressobj(9, zlib.DEFLATED, -15)
    payload = squeezed.compress(bytes(4 * MB)) + squeezed.flush(zlib.Z_SYNC_FLUSH)
    return bytes([0xC1, 0x80 | 126]) + struct.pack(">HI", len(payload), 0) + payload


LONG_NAME = "attacked/" + "a" * 91
DEVICES = 20_000
READERS_HEAD = SYSTEM.head_of("reader", "attacked*")


def _devices(*patterns: str) -> str:
    return "?" + urlencode([("devices", pattern) for pattern in patterns])


def _get(path: str, more: str = "", *, reads: bool = True) -> Attacker:
    request = _head(path=path, more=READERS_HEAD + more) + b"\r\n"
    return Attacker(request, request if reads else b"", reads=reads, every_s=0.5)


def _watch(port: int, path: str, again: bytes | Iterable[bytes] = b"", every_s: float = 1.0) -> Attacker:
    return Attacker(handshake(port, path, READERS_HEAD), again, every_s=every_s)


def _guesses() -> Iterable[bytes]:
    """Yield pairing codes, each another one, and none that is good."""
    for number in _numbers:
        body = json.dumps({"code": f"ZZZZ{number % 10_000:04}"})
        more = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        yield _head("POST", "/api/pair", more) + f"\r\n{body}".encode()


def _many_stars(count: int) -> list[str]:
    return ["attacked*" + "a*" * 60 + f"b{number}*" for number in range(count)]


def _subscribe(kind: str, **more: object) -> bytes:
    return frame(json.dumps({"type": kind, **more}).encode())


def _changing_frequency() -> Iterable[bytes]:
    """Ask for 960 names, then change how often they are to come as fast as frames are read."""
    for block in range(12):
        yield _subscribe("subscribe", devices=[f"attacked/{block}-{number}-{'p' * 90}" for number in range(80)])
    for number in itertools.count():
        yield b"".join(_subscribe("subscribe", max_hz=0.01 + (number * 20 + each) / 1e7) for each in range(20))


def _changing_patterns() -> Iterable[bytes]:
    """Take one pattern away and another one in, again and again."""
    for number in itertools.count():
        patterns = [f"attacked/*a*{number % 100}x"]
        yield _subscribe("unsubscribe", devices=patterns) + _subscribe("subscribe", devices=patterns)


def _publishing(names: Sequence[str], value_bytes: int) -> Iterable[bytes]:
    """Say a large value of one device after another."""
    for name in itertools.cycle(names):
        text = json.dumps({"type": "telemetry", "device_id": name, "value": "x" * value_bytes})
        yield frame(text.encode())


_ONE_DEVICE = _head(path=f"/api/data/{quote(f'{LONG_NAME}00000', safe='')}", more=READERS_HEAD) + b"\r\n"
_PROBE = _head(path="/readyz") + b"\r\n"
_SCRAPE = _head(path="/metrics") + b"\r\n"
_OFFER = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
_GZIPPED = "Content-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: 1000000\r\n\r\n"
_BOMB, _SQUEEZED = _bomb(), zlib.compress(bytes(MB))
_CHUNKED = "Transfer-Encoding: chunked\r\n"
_BODY = "Content-Type: application/json\r\nContent-Length: 1000000\r\n"

ATTACKS: dict[str, Attack] = {
    "codes": Attack(
        "pairing codes guessed 100 times a second",
        50,
        lambda port: Attacker(next(iter(_guesses())), _guesses(), every_s=0.5),
        30 * MB,
    ),
    "slow-heads": Attack("heads that trickle", 1_000, lambda _: Attacker(_head(), b"X-A: b\r\n"), 30 * MB),
    "slow-bodies": Attack(
        "bodies that trickle, or never begin",
        1_000,
        _in_turn(
            lambda _: Attacker(_head("POST", "/api/data", ATTACKERS_HEAD + _BODY) + b"\r\n[", b" "),
            lambda _: Attacker(_head("POST", "/api/data", ATTACKERS_HEAD + _BODY) + b"\r\n"),
        ),
        40 * MB,
    ),
    "trailers": Attack(
        "trailers without end",
        20,
        lambda _: Attacker(_head("POST", "/", _CHUNKED) + b"\r\n0\r\n", b"a: b\r\n" * 1_000, every_s=0.05),
        30 * MB,
    ),
    "pipelines": Attack(
        "requests that are sent all at once, and their answers not read",
        20,
        lambda _: Attacker((_head(path="/pages/vendor/swagger-ui-bundle.js") + b"\r\n") * 1_000, reads=False),
        60 * MB,
    ),
    "half-open": Attack(
        "upgrades that are not completed, or nobody's",
        500,
        _in_turn(lambda port: Attacker(handshake(port, "/ws")[:-2]), lambda port: Attacker(handshake(port, "/ws"))),
        40 * MB,
    ),
    "never-reading": Attack(
        "watchers that do not read",
        200,
        lambda port: Attacker(handshake(port, "/ws", ATTACKERS_HEAD), reads=False),
        60 * MB,
        begins_s=18.0,
    ),
    "idle": Attack(
        "idle watchers of nothing",
        10_000,
        lambda port: Attacker(handshake(port, "/ws?devices=", ATTACKERS_HEAD)),
        200 * MB,
    ),
    "pings": Attack(
        "ping floods, without reading the pongs",
        20,
        lambda port: Attacker(
            handshake(port, "/ws?devices=", ATTACKERS_HEAD),
            frame(b"p" * 100, PING_OPCODE) * 25,
            reads=False,
            every_s=0.1,
        ),
        30 * MB,
    ),
    "chatter": Attack(
        "floods of small messages",
        20,
        lambda port: Attacker(
            handshake(port, "/ws?devices=", ATTACKERS_HEAD), frame(b'{"type":"ping"}') * 200, every_s=0.1
        ),
        30 * MB,
    ),
    "bombs": Attack(
        "compressed frames and bodies",
        100,
        _in_turn(
            lambda port: Attacker(handshake(port, "/ws?devices=", ATTACKERS_HEAD + _OFFER), _BOMB, every_s=0.2),
            lambda _: Attacker(_head("POST", "/api/data", ATTACKERS_HEAD + _GZIPPED), _SQUEEZED),
        ),
        30 * MB,
    ),
    "patterns": Attack(
        "GETs with 100 patterns of many stars, over 20,000 long names",
        4,
        lambda _: _get("/api/data" + _devices(*_many_stars(100))),
        60 * MB,
        devices=DEVICES,
    ),
    "harmless-patterns": Attack(
        "GETs with 100 patterns that select nothing, over 20,000 names",
        4,
        lambda _: _get("/api/data" + _devices(*(f"attacked/zone{number}/*" for number in range(100)))),
        60 * MB,
        devices=DEVICES,
    ),
    "pattern-sockets": Attack(
        "watchers with 40 patterns of many stars, that come again and again",
        8,
        lambda port: _watch(port, "/ws" + _devices(*_many_stars(40)), [b"", frame(b"", CLOSE_OPCODE)], every_s=2.0),
        60 * MB,
        devices=DEVICES,
    ),
    "changing-frequency": Attack(
        "a watcher of 960 names that changes `max_hz` 1,000 times a second",
        1,
        lambda port: _watch(port, "/ws?devices=", _changing_frequency(), every_s=0.02),
        30 * MB,
    ),
    "changing-patterns": Attack(
        "watchers with 100 patterns that change one 20 times a second",
        15,
        lambda port: _watch(
            port, "/ws" + _devices(*(f"attacked/*a*{number}y" for number in range(99))), _changing_patterns(), 0.05
        ),
        60 * MB,
        devices=2_000,
    ),
    "unread-greetings": Attack(
        "greetings of 45 MB that are not read",
        15,
        lambda port: Attacker(handshake(port, "/ws", READERS_HEAD), reads=False),
        120 * MB,
        devices=900,
        value_bytes=50_000,
    ),
    "unread-states": Attack(
        "GETs of 45 MB that are not read",
        15,
        lambda _: _get("/api/data", reads=False),
        120 * MB,
        devices=900,
        value_bytes=50_000,
    ),
    "compressed-states": Attack(
        "GETs of 45 MB that ask for gzip",
        15,
        lambda _: _get("/api/data", "Accept-Encoding: gzip\r\n"),
        120 * MB,
        devices=900,
        value_bytes=50_000,
    ),
    "one-device": Attack(
        "floods of GETs of one device, 5,000 a second",
        20,
        lambda _: Attacker(_ONE_DEVICE, _ONE_DEVICE * 25, every_s=0.1),
        30 * MB,
        devices=1,
    ),
    "probes": Attack(
        "floods of probes without a credential, 5,000 a second",
        20,
        lambda _: Attacker(_PROBE, _PROBE * 25, every_s=0.1),
        30 * MB,
    ),
    "scrapes": Attack(
        "floods of GETs of /metrics from the server's own machine, 1,000 a second",
        20,
        lambda _: Attacker(_SCRAPE, _SCRAPE * 5, every_s=0.1),
        30 * MB,
    ),
    "large-values": Attack(
        "a publisher of 60,000 bytes a device, of new devices at its rate",
        4,
        lambda port: _watch(
            port,
            "/ws?devices=",
            _publishing([f"attacked/{next(_numbers)}-{device}" for device in range(10_000)], 60_000),
            every_s=0.01,
        ),
        600 * MB,
    ),
}


@dataclass(frozen=True)
class Outcome:
    """What one attack did."""

    calm_ms: float
    """Before and after it, on average: a server that has run longer is a little slower anyway."""
    beginning_ms: float
    """While it begins: until the connections of those who do not read are full, they cost what others cost."""
    attacked_ms: float
    cost: float
    """Of the server's core, beyond what the healthy clients take."""
    grown_bytes: int
    thrown_out: int

    @property
    def ratio(self) -> float:
        """The attacked p99 over the calm one."""
        return self.attacked_ms / self.calm_ms


async def _measure(attack: Attack, process: ServerProcess, port: int, seconds: float) -> Outcome:
    async def window(seconds: float = seconds) -> tuple[float, float]:
        """Return a p99 in milliseconds, and how much of its core the server took."""
        began_s, cpu_s = time.perf_counter(), process.cpu_s
        delays = await latency.measure(SYSTEM, port, seconds=seconds, clients=CLIENTS, rate_per_s=RATE_PER_S)
        return delays.p99_ms, (process.cpu_s - cpu_s) / (time.perf_counter() - began_s)

    await window()  # warms up: caches, and the memory that every later run uses again
    before_ms, calm_load = await window()
    before_bytes = process.memory_bytes
    async with attack.under_way(port) as attackers:
        beginning_ms, _ = await window(max(seconds, attack.begins_s))
        attacked_ms, attacked_load = await window()
        grown_bytes = process.memory_bytes - before_bytes
        thrown_out = sum(attacker.is_over for attacker in attackers)
    await window()  # until the attackers are gone
    after_ms, _ = await window()
    calm_ms = (before_ms + after_ms) / 2
    cost = max(0.0, attacked_load - calm_load)
    return Outcome(calm_ms, beginning_ms, attacked_ms, cost, max(0, grown_bytes), thrown_out)


def _fill(port: int, devices: int, value_bytes: int) -> None:
    """Store a value for each of so many devices, by one identity for each request: none may send more at once."""
    each = min(5_000, 3 * MB // (len(LONG_NAME) + value_bytes + 40))
    names = [f"{LONG_NAME}{number:05d}" for number in range(devices)]
    for start in range(0, devices, each):
        body = json.dumps([{"device_id": name, "value": "x" * value_bytes} for name in names[start : start + each]])
        head = SYSTEM.head_of(f"filler {start}", "attacked*").strip().partition(": ")
        request = Request(f"http://127.0.0.1:{port}/api/data", body.encode(), {"Content-Type": "application/json"})
        request.add_header(head[0], head[2])
        urlopen(request).close()


def run(name: str, seconds: float) -> Outcome:
    """Run one attack on a server of its own."""
    attack = ATTACKS[name]
    use_core(LOAD_CORE)
    with SYSTEM.running() as (process, port):
        time.sleep(0.5)
        _fill(port, attack.devices, attack.value_bytes)
        return uvloop.run(_measure(attack, process, port, seconds))


def main() -> None:
    """Run attacks, print what came of them, and judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("attacks", nargs="*", metavar="ATTACK", choices=[*ATTACKS, []], help=", ".join(ATTACKS))
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="medians are of so many")
    given = parser.parse_args()
    allow_many_files()
    os.environ["TWINCAST_AUTH_TIMEOUT_S"] = "5"
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)
    columns = (
        "attack",
        "by",
        "p99 calm, ms",
        "beginning",
        "attacked",
        "ratio",
        "of the core",
        "grew, MB",
        "thrown out",
        "",
    )
    table = Table(*columns, box=None)
    failed = False
    for name in given.attacks or ATTACKS:
        outcomes = []
        for number in range(given.rounds):
            console.print(f"{name}: round {number + 1} of {given.rounds}")
            outcomes.append(run(name, given.seconds))
        ratio = statistics.median(outcome.ratio for outcome in outcomes)
        grown = statistics.median(outcome.grown_bytes for outcome in outcomes)
        good = ratio <= RATIO_MAX and grown <= ATTACKS[name].grows_max_bytes
        failed |= not good
        table.add_row(
            ATTACKS[name].what,
            f"{ATTACKS[name].count:,}",
            f"{statistics.median(outcome.calm_ms for outcome in outcomes):.2f}",
            f"{statistics.median(outcome.beginning_ms for outcome in outcomes):.2f}",
            f"{statistics.median(outcome.attacked_ms for outcome in outcomes):.2f}",
            f"{ratio:.2f}",
            f"{statistics.median(outcome.cost for outcome in outcomes):.0%}",
            f"{grown / MB:.1f} of {ATTACKS[name].grows_max_bytes // MB}",
            f"{statistics.median(outcome.thrown_out for outcome in outcomes):,.0f}",
            "held" if good else "NOT HELD",
        )
    console.print(table)
    sys.exit(failed)


if __name__ == "__main__":
    main()
