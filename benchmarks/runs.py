"""Which systems face which load, one run of each a round; what they are compared with; what must come out."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import uvloop

from benchmarks.loads import delivery, fanout, idle, latency, rest
from benchmarks.machine import LOAD_CORE, use_core
from benchmarks.peers import Naive, Nats, PocketBase, Socketify, Streaming, Twincast, TwincastWithLogin

MEMORY, SQLITE = Twincast("memory"), Twincast("sqlite")
LOGIN = TwincastWithLogin()
NATS, UWS, NAIVE, POCKETBASE = Nats(), Socketify(), Naive(), PocketBase()
SETTLE_S = 0.3

Sample = tuple[str, str, float]
"""A figure's name, the system's name, and the value."""
Run = Callable[[float], Iterator[Sample]]
"""One run of one load on one system, for about so many seconds."""


@dataclass(frozen=True)
class Target:
    """What a figure must be: its value over that of another system in the same round, or the value itself."""

    figure: str
    system: str
    other: str | None
    at_least: float | None = None
    at_most: float | None = None

    def is_met(self, value: float) -> bool:
        """Whether a median keeps it."""
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)


def fan_out(system: Streaming, clients: int) -> Run:
    """Readings delivered in a second, to all clients together; server on one core, load on the other."""

    def run(seconds: float) -> Iterator[Sample]:
        use_core(LOAD_CORE)
        with system.running() as (process, port):
            time.sleep(SETTLE_S)
            result = uvloop.run(fanout.measure(system, process, port, clients, in_flight=64, seconds=seconds))
        yield f"fan-out to {clients:,}", system.name, result.deliveries_per_s
        yield f"CPU µs a reading, fan-out to {clients:,}", system.name, result.cpu_us_a_reading

    return run


def ingest(system: Streaming) -> Run:
    """Readings that went in and came back in a second, 4,096 in flight, server and load on both cores."""

    def run(seconds: float) -> Iterator[Sample]:
        use_core(None)
        with system.running(core=None) as (process, port):
            time.sleep(SETTLE_S)
            result = uvloop.run(fanout.measure(system, process, port, 1, in_flight=4_096, seconds=seconds))
        yield "ingest over WebSocket", system.name, result.deliveries_per_s
        yield "CPU µs a reading, ingest over WebSocket", system.name, result.cpu_us_a_reading

    return run


def delays(system: Streaming) -> Run:
    """Milliseconds from sending to having, at 1,000 readings a second to 100 clients."""

    def run(seconds: float) -> Iterator[Sample]:
        use_core(LOAD_CORE)
        with system.running() as (_, port):
            time.sleep(SETTLE_S)
            p50_ms, p99_ms = uvloop.run(latency.measure(system, port, seconds=seconds))
        yield "latency p50, ms", system.name, p50_ms
        yield "latency p99, ms", system.name, p99_ms

    return run


def memory_of_idle(system: Streaming) -> Run:
    """Bytes of the server for each of 5,000 connections that say nothing."""

    def run(_seconds: float) -> Iterator[Sample]:
        use_core(LOAD_CORE)
        with system.running() as (process, port):
            time.sleep(SETTLE_S)
            yield (
                "idle connection, bytes",
                system.name,
                uvloop.run(idle.measure(system, process, port, connections=5_000)),
            )

    return run


def single_devices(clients: int) -> Run:
    """Updates a second, when each of so many clients follows one device."""

    def run(seconds: float) -> Iterator[Sample]:
        use_core(LOAD_CORE)
        with MEMORY.running() as (_, port):
            time.sleep(SETTLE_S)
            rate = uvloop.run(delivery.single_devices(port, clients=clients, in_flight=64, seconds=seconds))
        yield f"updates, each for one of {clients:,}", MEMORY.name, rate

    return run


def dashboards(seconds: float) -> Iterator[Sample]:
    """A thousand dashboards, each on a thousand devices ten times a second, at 20,000 updates a second."""
    use_core(LOAD_CORE)
    with MEMORY.running() as (_, port):
        time.sleep(SETTLE_S)
        refreshes, taken = uvloop.run(
            delivery.dashboards(
                port, clients=1_000, devices=1_000, updates_per_s=20_000, max_hz=10, seconds=max(4.0, 2 * seconds)
            )
        )
    yield "dashboards: refreshes of a device in a second", MEMORY.name, refreshes
    yield "dashboards: updates taken in a second", MEMORY.name, taken


def event_streams(seconds: float) -> Iterator[Sample]:
    """Readings delivered in a second, to a hundred event streams together."""
    use_core(LOAD_CORE)
    with MEMORY.running() as (_, port):
        time.sleep(SETTLE_S)
        rate = uvloop.run(delivery.event_streams(MEMORY, port, clients=100, in_flight=64, seconds=seconds))
    yield "event streams, 100", MEMORY.name, rate


def resumes(_seconds: float) -> Iterator[Sample]:
    """Seconds until a thousand clients, coming back at once, have the thousand changes that each has missed."""
    use_core(LOAD_CORE)
    with SQLITE.running() as (_, port):
        time.sleep(SETTLE_S)
        yield "resume of 1,000 clients, s", SQLITE.name, uvloop.run(delivery.resumes(port, clients=1_000, missed=1_000))


def reconnect_storm(_seconds: float) -> Iterator[Sample]:
    """Seconds until 5,000 clients, coming at once, have the state of 10,000 devices, and what it costs in memory."""
    use_core(LOAD_CORE)
    with SQLITE.running() as (process, port):
        time.sleep(SETTLE_S)
        seconds, grown_bytes = uvloop.run(delivery.storm(process, port, clients=5_000, devices=10_000))
    yield "reconnect storm, s", SQLITE.name, seconds
    yield "reconnect storm, bytes for each client", SQLITE.name, grown_bytes / 5_000


def beside_stalled(stalled_clients: int) -> Run:
    """The p99 of 200 clients at 400 readings a second, beside some that stop reading."""
    name = f"{MEMORY.name}, {stalled_clients} stalled" if stalled_clients else MEMORY.name

    def run(seconds: float) -> Iterator[Sample]:
        use_core(LOAD_CORE)
        with MEMORY.running() as (process, port):
            time.sleep(SETTLE_S)
            p99_ms, grown_bytes = uvloop.run(
                delivery.stalled(MEMORY, process, port, stalled_clients=stalled_clients, seconds=3 * seconds)
            )
        yield "p99 of 200 that read, ms", name, p99_ms
        yield "p99 of 200 that read: the server's growth, bytes", name, max(0.0, grown_bytes)

    return run


def _reading(number: int) -> bytes:
    return b'{"device_id":"lab%d","value":{"n":%d,"ok":true}}' % (number % 100, number)


def rest_writes(system: Streaming) -> Run:
    """Readings stored in a second by REST: one a request on 64 connections, and 1,000 a request on 4."""
    batch = rest.request("POST", "/api/data", b"[%b]" % b",".join(map(_reading, range(1_000))))

    def run(seconds: float) -> Iterator[Sample]:
        use_core(LOAD_CORE)
        with system.running() as (process, port):
            time.sleep(SETTLE_S)
            cpu_s = process.cpu_s
            answered, elapsed_s = uvloop.run(rest.measure(port, _post("/api/data"), connections=64, seconds=seconds))
            yield "REST, one reading a request", system.name, answered / elapsed_s
            yield "CPU µs a reading, REST", system.name, 1e6 * (process.cpu_s - cpu_s) / answered
            batches, elapsed_s = uvloop.run(rest.measure(port, lambda _: batch, connections=4, seconds=seconds))
            yield "REST, 1,000 readings a request", system.name, 1_000 * batches / elapsed_s
            stored = answered + 1_000 * batches
            if (seq := uvloop.run(rest.status(port))["seq"]) != stored:
                raise rest.Refused(f"{stored} readings were acknowledged, {seq} are stored")

    return run


def rest_writes_of_pocketbase(seconds: float) -> Iterator[Sample]:
    """Records created in a second by PocketBase's REST, on 64 connections."""
    use_core(LOAD_CORE)
    with POCKETBASE.running() as (_, port, path):
        time.sleep(SETTLE_S)
        answered, elapsed_s = uvloop.run(rest.measure(port, _post(path), connections=64, seconds=seconds))
    yield "REST, one reading a request", POCKETBASE.name, answered / elapsed_s


def _post(path: str) -> Callable[[int], bytes]:
    return lambda number: rest.request("POST", path, _reading(number))


def _fan_outs(clients: int) -> list[Run]:
    return [fan_out(system, clients) for system in (MEMORY, NATS, UWS, SQLITE, NAIVE)]


LOADS: dict[str, list[Run]] = {
    "fanout-1": _fan_outs(1),
    "fanout-10": _fan_outs(10),
    "fanout-100": [*_fan_outs(100), fan_out(LOGIN, 100)],
    "fanout-1000": [*_fan_outs(1_000), fan_out(LOGIN, 1_000)],
    "ingest": [ingest(MEMORY), ingest(SQLITE)],
    "rest": [rest_writes(SQLITE), rest_writes_of_pocketbase],
    "latency": [delays(MEMORY), delays(SQLITE), delays(NATS)],
    "single": [single_devices(100), single_devices(10_000)],
    "dashboards": [dashboards],
    "sse": [event_streams],
    "resume": [resumes],
    "storm": [reconnect_storm],
    "stalled": [beside_stalled(0), beside_stalled(20)],
    "idle": [memory_of_idle(system) for system in (MEMORY, NATS, UWS, NAIVE)],
}

TARGETS = (
    Target("fan-out to 10", MEMORY.name, NATS.name, at_least=0.7),
    Target("fan-out to 100", MEMORY.name, NATS.name, at_least=1.2),
    Target("fan-out to 1,000", MEMORY.name, NATS.name, at_least=1.5),
    Target("fan-out to 10", MEMORY.name, UWS.name, at_least=2.0),
    Target("fan-out to 100", MEMORY.name, UWS.name, at_least=1.0),
    Target("fan-out to 1,000", MEMORY.name, UWS.name, at_least=5.0),
    Target("fan-out to 100", SQLITE.name, MEMORY.name, at_least=0.6),
    Target("fan-out to 100", MEMORY.name, NAIVE.name, at_least=60.0),
    Target("fan-out to 100", LOGIN.name, MEMORY.name, at_least=0.9),
    Target("fan-out to 1,000", LOGIN.name, MEMORY.name, at_least=0.9),
    Target("ingest over WebSocket", SQLITE.name, None, at_least=60_000),
    Target("ingest over WebSocket", SQLITE.name, MEMORY.name, at_least=0.6),
    Target("REST, one reading a request", SQLITE.name, POCKETBASE.name, at_least=3.0),
    Target("REST, 1,000 readings a request", SQLITE.name, None, at_least=50_000),
    Target("latency p50, ms", SQLITE.name, MEMORY.name, at_most=4.0),
    Target("latency p99, ms", SQLITE.name, MEMORY.name, at_most=5.0),
    Target("idle connection, bytes", MEMORY.name, None, at_most=12_000),
    Target("restart, s", SQLITE.name, None, at_most=2.0),
    Target("p99 of 200 that read, ms", f"{MEMORY.name}, 20 stalled", MEMORY.name, at_most=1.2),
    Target("reconnect storm, bytes for each client", SQLITE.name, None, at_most=1_000_000),
    Target("updates, each for one of 10,000", MEMORY.name, None, at_least=10_000),
)


def described() -> str:
    """Return the loads' names for a person."""
    return json.dumps([*LOADS, "restart"])[1:-1].replace('"', "")
