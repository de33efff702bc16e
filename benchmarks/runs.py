"""Which systems face which load, one run of each a round; what they are compared with; what must come out."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import uvloop

from benchmarks.history import fleets
from benchmarks.loads import catch_up, charts, delivery, failover, fanout, history, idle, jetstream, latency, page, rest
from benchmarks.machine import LOAD_CORE, use_core
from benchmarks.peers import (
    DurableStreams,
    JetStream,
    Naive,
    Nats,
    PocketBase,
    Socketify,
    Streaming,
    Twincast,
    TwincastWithLogin,
)
from benchmarks.peers.shared_log import TwincastShared, TwincastWorkers, can_limit

MEMORY, SQLITE = Twincast("memory"), Twincast("sqlite")
PART_ENTRIES = 60_000
"""Entries of a partition where closing is measured: a million, as by default, would not be reached in a run."""
OPEN = Twincast("sqlite", name="twincast, sqlite, closing nothing", flags=("--partition-entries", "0"))
CLOSING = Twincast(
    "sqlite",
    name=f"twincast, sqlite, closing each {PART_ENTRIES:,}",
    flags=("--partition-entries", str(PART_ENTRIES), "--resume-max-entries", str(PART_ENTRIES)),
)
R1, R3 = TwincastShared(1), TwincastShared(3)
LOGIN = TwincastWithLogin()
NATS, UWS, NAIVE, POCKETBASE = Nats(), Socketify(), Naive(), PocketBase()
JETSTREAM, DURABLE_STREAMS = JetStream(), DurableStreams()
JETSTREAM_BATCHES = f"{JETSTREAM.name}, batches of 1,000"
JETSTREAM_SINGLE = f"{JETSTREAM.name}, a message a reading"
WORKERS = {count: TwincastWorkers(count) for count in (1, 2, 4)}
WORKERS_IN_FLIGHT = 4_096
"""Enough for all workers at once: each stands still for 80 of 100 ms, and a reading waits for it twice. With 512 that
wait was the bound, not the workers."""
CATCH_UP_ENTRIES = 3_000_000
SETTLE_S = 0.3
PAGE_UPDATES_PER_S = 20
SECONDS = 2.0
"""How long a run takes, about, unless it is asked for otherwise."""
INGEST_IN_FLIGHT = 4_096
STEADY_RATE_PER_S = 20_000
STEADY_S = 10.0
"""Long enough that what a server does now and then falls into it: a checkpoint, a collection of garbage."""
PAGE_S = 10.0

Sample = tuple[str, str, float]
"""A figure's name, the system's name, and the value."""
Run = Callable[[float], Iterator[Sample]]
"""One run of one load on one system, for about so many seconds."""


@dataclass(frozen=True)
class Target:
    """What a figure must be: its value over that of another system in the same round, or the value itself.

    It is judged by the median of the rounds, or, if it must hold in each of them, by the worst.
    """

    figure: str
    system: str
    other: str | None
    at_least: float | None = None
    at_most: float | None = None
    in_each_round: bool = False

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
            measured = fanout.measure(system, process, port, 1, in_flight=INGEST_IN_FLIGHT, seconds=seconds)
            result = uvloop.run(measured)
        yield "ingest", system.name, result.deliveries_per_s
        yield "CPU µs a reading, ingest", system.name, result.cpu_us_a_reading

    return run


def ingest_of_jetstream(name: str, batch_size: int, *, is_read: bool) -> Run:
    """The same of JetStream, whose publisher sends messages or atomic batches, and which may be read meanwhile."""

    def run(seconds: float) -> Iterator[Sample]:
        use_core(None)
        with JETSTREAM.running(core=None) as (process, port):
            time.sleep(SETTLE_S)
            result = uvloop.run(
                jetstream.measure(
                    process, port, batch_size=batch_size, is_read=is_read, in_flight=INGEST_IN_FLIGHT, seconds=seconds
                )
            )
        yield "ingest", name, result.readings / result.seconds
        yield "CPU µs a reading, ingest", name, 1e6 * result.cpu_s / result.readings

    return run


def workers_fan_out(system: TwincastWorkers) -> Run:
    """Readings delivered in a second to 1,000 clients by workers that have a fifth of a core each."""

    def run(seconds: float) -> Iterator[Sample]:
        use_core(LOAD_CORE)
        with system.running() as (process, port):
            time.sleep(SETTLE_S)
            measured = fanout.measure(system, process, port, 1_000, in_flight=WORKERS_IN_FLIGHT, seconds=2 * seconds)
            result = uvloop.run(measured)
        yield "fan-out to 1,000, a fifth of a core each", system.name, result.deliveries_per_s

    return run


def catching_up(seconds: float) -> Iterator[Sample]:
    """Entries a second that a server takes in which starts with nothing on a shared log."""
    use_core(None)
    entries = round(CATCH_UP_ENTRIES * seconds / SECONDS)
    yield "catching up, entries/s", R1.name, catch_up.measure(entries - entries % catch_up.COMMIT_ENTRIES)


def silence_after(failure: failover.Failure) -> Run:
    """Seconds in which clients get nothing, when something of a cluster of three fails."""

    def run(_seconds: float) -> Iterator[Sample]:
        use_core(None)
        yield f"silence after {failure}, s", R3.name, failover.measure(failure)

    return run


def delays(system: Streaming) -> Run:
    """Milliseconds from sending to having, at 1,000 readings a second to 100 clients."""

    def run(seconds: float) -> Iterator[Sample]:
        use_core(LOAD_CORE)
        with system.running() as (_, port):
            time.sleep(SETTLE_S)
            result = uvloop.run(latency.measure(system, port, seconds=seconds))
        yield "latency p50, ms", system.name, result.p50_ms
        yield "latency p99, ms", system.name, result.p99_ms

    return run


def steady(system: Streaming) -> Run:
    """Milliseconds from sending to having, at 20,000 readings a second to one client."""

    def run(seconds: float) -> Iterator[Sample]:
        use_core(LOAD_CORE)
        with system.running() as (_, port):
            time.sleep(SETTLE_S)
            long_s = STEADY_S * seconds / SECONDS
            measured = latency.measure(system, port, seconds=long_s, clients=1, rate_per_s=STEADY_RATE_PER_S)
            result = uvloop.run(measured)
        yield "steady 20,000/s, p99, ms", system.name, result.p99_ms
        yield "steady 20,000/s, longest, ms", system.name, result.longest_ms

    return run


def memory_of_idle(system: Streaming) -> Run:
    """Bytes of the server for each of 5,000 connections that say nothing."""

    def run(_seconds: float) -> Iterator[Sample]:
        use_core(LOAD_CORE)
        with system.running() as (process, port):
            time.sleep(SETTLE_S)
            each_bytes = uvloop.run(idle.measure(system, process, port, connections=5_000))
        yield "idle connection, bytes", system.name, each_bytes

    return run


def page_cost(system: Twincast) -> Run:
    """Percent of a core that a browser takes in which the dashboard is open, at 20 updates a second."""

    def run(seconds: float) -> Iterator[Sample]:
        use_core(None)
        with system.running() as (_, port):
            url = f"http://127.0.0.1:{port}"
            with page.simulated(url, PAGE_UPDATES_PER_S, system.root):
                long_s = PAGE_S * seconds / SECONDS
                used_percent = page.measure(url, long_s, updates_per_s=PAGE_UPDATES_PER_S)
        yield "page at 20 updates/s, % of a core", system.name, used_percent

    return run


def chart_paint(system: Twincast) -> Run:
    """Milliseconds from opening a device's page until its month is seen, with nothing of the page in the browser."""

    def run(_seconds: float) -> Iterator[Sample]:
        use_core(None)
        with system.running(core=None) as (process, port):
            url = f"http://127.0.0.1:{port}"
            device = charts.fill_month(url)
            process.wait_until_calm()  # it indexes what came
            yield "device page with a month, first paint, ms", system.name, charts.first_paint_ms(url, device)

    return run


def chart_frames(system: Twincast) -> Run:
    """Milliseconds of a frame, while fifty charts of 10,000 readings are scrolled and each grows each second."""

    def run(seconds: float) -> Iterator[Sample]:
        use_core(None)
        with system.running(core=None) as (process, port):
            url = f"http://127.0.0.1:{port}"
            charts.fill_wall(url)
            process.wait_until_calm()
            frames = charts.frames_of_wall(url, PAGE_S * seconds / SECONDS)
        yield "frame of 50 charts, median, ms", system.name, frames.median_ms
        yield "frame of 50 charts, p95, ms", system.name, frames.p95_ms
        yield "frame of 50 charts, longest, ms", system.name, frames.longest_ms

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


def rest_writes_of_durable_streams(seconds: float) -> Iterator[Sample]:
    """Readings appended in a second to one stream of Durable Streams: one a request, and 1,000 a request."""
    use_core(LOAD_CORE)
    batch = rest.request("POST", DURABLE_STREAMS.path, b"[%b]" % b",".join(map(_reading, range(1_000))))
    with DURABLE_STREAMS.running() as (_, port):
        time.sleep(SETTLE_S)
        single = _post(DURABLE_STREAMS.path)
        answered, elapsed_s = uvloop.run(rest.measure(port, single, connections=64, seconds=seconds))
        yield "REST, one reading a request", DURABLE_STREAMS.name, answered / elapsed_s
        batches, elapsed_s = uvloop.run(rest.measure(port, lambda _: batch, connections=4, seconds=seconds))
        yield "REST, 1,000 readings a request", DURABLE_STREAMS.name, 1_000 * batches / elapsed_s
        if (stored := DURABLE_STREAMS.stored(port)) != answered + 1_000 * batches:
            raise rest.Refused(f"{answered + 1_000 * batches} readings were acknowledged, {stored} are stored")


def _post(path: str) -> Callable[[int], bytes]:
    return lambda number: rest.request("POST", path, _reading(number))


def _fan_outs(clients: int) -> list[Run]:
    return [fan_out(system, clients) for system in (MEMORY, NATS, UWS, SQLITE, NAIVE)]


LOADS: dict[str, list[Run]] = {
    "fanout-1": _fan_outs(1),
    "fanout-10": _fan_outs(10),
    "fanout-100": [*_fan_outs(100), fan_out(LOGIN, 100)],
    "fanout-1000": [*_fan_outs(1_000), fan_out(LOGIN, 1_000)],
    "ingest": [
        ingest(MEMORY),
        ingest(SQLITE),
        ingest(R1),
        ingest(R3),
        ingest_of_jetstream(JETSTREAM_BATCHES, 1_000, is_read=True),
        ingest_of_jetstream(f"{JETSTREAM_BATCHES}, not read", 1_000, is_read=False),
        ingest_of_jetstream(JETSTREAM_SINGLE, 1, is_read=True),
    ],
    "rest": [
        rest_writes(SQLITE),
        rest_writes_of_pocketbase,
        *([rest_writes_of_durable_streams] if DURABLE_STREAMS.is_here else []),
    ],
    "latency": [delays(MEMORY), delays(SQLITE), delays(R1), delays(R3), delays(NATS)],
    "steady": [steady(SQLITE)],
    "closing": [steady(OPEN), steady(CLOSING), ingest(OPEN), ingest(CLOSING)],
    "workers": [workers_fan_out(system) for system in WORKERS.values()] if can_limit() else [],
    "catch-up": [catching_up],
    "failover": [silence_after(failure) for failure in failover.FAILURES],
    "single": [single_devices(100), single_devices(10_000)],
    "dashboards": [dashboards],
    "sse": [event_streams],
    "resume": [resumes],
    "storm": [reconnect_storm],
    "stalled": [beside_stalled(0), beside_stalled(20)],
    "idle": [memory_of_idle(system) for system in (MEMORY, NATS, UWS, NAIVE)],
    "history": [history.of_a_fleet, history.of_one_at_1_hz, history.of_states],
    "page": [page_cost(MEMORY)] if page.is_here() else [],
    "charts": [chart_paint(SQLITE), chart_frames(SQLITE)] if page.is_here() else [],
}

TARGETS = (
    Target("fan-out to 1", MEMORY.name, NATS.name, at_least=0.45),
    Target("fan-out to 10", MEMORY.name, NATS.name, at_least=0.8),
    Target("fan-out to 100", MEMORY.name, NATS.name, at_least=1.5),
    Target("fan-out to 1,000", MEMORY.name, NATS.name, at_least=3.0),
    Target("fan-out to 100", SQLITE.name, NATS.name, at_least=1.2),
    Target("fan-out to 1,000", SQLITE.name, NATS.name, at_least=3.0),
    Target("fan-out to 10", MEMORY.name, UWS.name, at_least=2.0),
    Target("fan-out to 100", MEMORY.name, UWS.name, at_least=1.0),
    Target("fan-out to 1,000", MEMORY.name, UWS.name, at_least=5.0),
    Target("fan-out to 100", SQLITE.name, MEMORY.name, at_least=0.6),
    Target("fan-out to 100", MEMORY.name, NAIVE.name, at_least=60.0),
    Target("fan-out to 100", LOGIN.name, MEMORY.name, at_least=0.9),
    Target("fan-out to 1,000", LOGIN.name, MEMORY.name, at_least=0.9),
    Target("ingest", SQLITE.name, None, at_least=60_000),
    Target("ingest", SQLITE.name, MEMORY.name, at_least=0.8),
    Target("ingest", SQLITE.name, JETSTREAM_BATCHES, at_least=2.5),
    Target("ingest", R1.name, SQLITE.name, at_least=0.75),
    Target("ingest", R1.name, JETSTREAM_BATCHES, at_least=1.4),
    Target("ingest", R1.name, JETSTREAM_SINGLE, at_least=25.0),
    Target("latency p50, ms", R1.name, SQLITE.name, at_most=3.0),
    Target("latency p50, ms", R3.name, SQLITE.name, at_most=8.0),
    *(
        Target("fan-out to 1,000, a fifth of a core each", WORKERS[count].name, WORKERS[1].name, at_least=times)
        for count, times in ((2, 1.7), (4, 3.0))
        if can_limit()
    ),
    Target("catching up, entries/s", R1.name, None, at_least=300_000),
    Target("silence after a NATS leader killed, s", R3.name, None, at_most=7.0),
    Target("silence after a NATS leader killed, s", R3.name, None, at_most=12.0, in_each_round=True),
    Target("silence after a NATS leader stopped, s", R3.name, None, at_most=1.0),
    Target("silence after a server killed, s", R3.name, None, at_most=2.0),
    Target("REST, one reading a request", SQLITE.name, POCKETBASE.name, at_least=6.5),
    Target("REST, 1,000 readings a request", SQLITE.name, None, at_least=50_000),
    Target("latency p50, ms", SQLITE.name, MEMORY.name, at_most=2.0),
    Target("latency p99, ms", SQLITE.name, MEMORY.name, at_most=2.0),
    Target("steady 20,000/s, longest, ms", SQLITE.name, None, at_most=60.0, in_each_round=True),
    Target("steady 20,000/s, p99, ms", CLOSING.name, OPEN.name, at_most=1.5),
    Target("steady 20,000/s, longest, ms", CLOSING.name, None, at_most=60.0, in_each_round=True),
    Target("ingest", CLOSING.name, OPEN.name, at_least=0.9),
    Target("history: newest 1,000, ms", SQLITE.name, None, at_most=5.0),
    Target("history: month as 1,000 points, ms", SQLITE.name, None, at_most=15.0),
    Target("history: month as 1,000 points, of the busiest, ms", SQLITE.name, None, at_most=40.0),
    *(
        Target(f"history: {span} at 1 Hz as 1,000 points, ms", SQLITE.name, None, at_most=30.0)
        for span in history.SPANS_US
    ),
    Target("history: the slowest of these over the fastest", SQLITE.name, None, at_most=2.0),
    Target("history: state of 10,000 devices at a time, ms", SQLITE.name, None, at_most=100.0),
    *(
        Target(f"history: bytes an entry {where}, {fleet.name}", SQLITE.name, None, at_most=bound)
        for fleet in (fleets.A, fleets.B)
        for where, bound in (("in partitions", 65.0), ("in all", 85.0))
    ),
    Target("device page with a month, first paint, ms", SQLITE.name, None, at_most=300.0),
    Target("frame of 50 charts, median, ms", SQLITE.name, None, at_most=17.0),
    Target("frame of 50 charts, p95, ms", SQLITE.name, None, at_most=33.5),
    Target("idle connection, bytes", MEMORY.name, None, at_most=8_192),
    Target("page at 20 updates/s, % of a core", MEMORY.name, None, at_most=8.0),
    Target("restart, s", SQLITE.name, None, at_most=2.0),
    Target("p99 of 200 that read, ms", f"{MEMORY.name}, 20 stalled", MEMORY.name, at_most=1.2),
    Target("reconnect storm, bytes for each client", SQLITE.name, None, at_most=1_000_000),
    Target("updates, each for one of 10,000", MEMORY.name, None, at_least=10_000),
)


def described() -> str:
    """Return the loads' names for a person."""
    return json.dumps([*LOADS, "restart"])[1:-1].replace('"', "")
