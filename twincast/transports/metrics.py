"""What Prometheus reads: the server's own numbers, gathered at each scrape and not before.

Nothing is counted here. What the hub, the journal and the clients' feeds count anyway is given Prometheus' names.
"""

import asyncio
import gc
import time
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import datetime

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from twincast.core.counters import Histogram, closes, refusals
from twincast.core.peers import Servers
from twincast.errors import TwincastError
from twincast.hub.hub import Hub
from twincast.transports.nats import Counters
from twincast.transports.parts import Parts

STEP_S, STEPS_LOOK_S = 0.05, 60.0
"""The delay of the timer whose lateness is measured, and over how long the greatest lateness is kept."""
UNASKED_S = 300.0
"""After so long without a scrape nothing is measured any more, until the next one."""


class Metrics(Collector):
    """The numbers of one server."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._steps = LongestStep()
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    content_type = CONTENT_TYPE_LATEST

    def text(self) -> bytes:
        """Return everything as Prometheus reads it. On the event loop; takes about a millisecond."""
        _ = self._parts.hub  # raises NotStarted, if there is none
        self._steps.ask()
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        """See Collector: there are no numbers before there is a hub."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        hub = self._parts.hub
        about = {"version": self._parts.version, "edge": self._parts.edge.name}
        yield _info("twincast", "Which twincast this is.", about)
        yield from _of_hub(hub, is_ready=self._parts.is_ready)
        yield from _of_journal(hub)
        if self._parts.servers is not None:
            yield from _of_servers(self._parts.servers)
        yield from self._of_clients(hub)
        yield from self._of_process()
        if self._parts.nats is not None:
            yield from _of_nats(self._parts.nats)

    def _of_clients(self, hub: Hub) -> Iterator[Metric]:
        parts = self._parts
        feeds = {parts.edge.name: [session.feed for session in parts.sessions], "events": list(parts.event_feeds)}
        clients = GaugeMetricFamily(
            "twincast_clients", "Clients that are connected, by what serves them.", labels=["edge"]
        )
        for edge, those in feeds.items():
            clients.add_metric([edge], len(those))
        yield clients
        everyone = [feed for those in feeds.values() for feed in those]
        behind = sum(feed.sender.is_behind for feed in everyone)
        yield _gauge("twincast_clients_behind", "Clients for whom something waits that they have not taken.", behind)
        waiting_bytes = sum(feed.sender.waiting_bytes for feed in everyone)
        yield _gauge("twincast_outbox_bytes", "What waits for clients and cannot be merged.", waiting_bytes)
        made, merged = hub.router.deliveries.made, hub.router.deliveries.merged
        yield _counter("twincast_deliveries", "Events sent to clients, one for each client and event.", made)
        yield _counter("twincast_merged", "Changes that a newer one of the same device took the place of.", merged)
        yield _by_code("twincast_refusals", "Errors told to clients, by code.", refusals)
        yield _by_code("twincast_websocket_closes", "WebSockets that the server ended, by code of the error.", closes)

    def _of_process(self) -> Iterator[Metric]:
        yield _gauge(
            "twincast_loop_longest_step_seconds",
            "How late the event loop was at most within the last minute: how long something held up everything else.",
            self._steps.longest_s(),
        )
        collections = CounterMetricFamily(
            "python_gc_collections", "Collections of Python's garbage, by generation.", labels=["generation"]
        )
        for generation, told in enumerate(gc.get_stats()):
            collections.add_metric([str(generation)], told["collections"])
        yield collections


class LongestStep:
    """How late the event loop's timers are, measured only while Prometheus scrapes."""

    def __init__(self) -> None:
        self._late: deque[tuple[float, float]] = deque()  # when, and by how much; only those that no later one exceeds
        self._asked_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def ask(self) -> None:
        """Go on measuring for some minutes."""
        self._asked_s = time.monotonic()
        loop = asyncio.get_running_loop()
        if self._timer is None or loop is not self._loop:  # one that has ended took its timer with it
            self._loop = loop
            self._wait(loop)

    def longest_s(self) -> float:
        """Return by how much a timer was late at most within the last minute; 0 if none was measured."""
        self._forget(time.monotonic())
        return self._late[0][1] if self._late else 0.0

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(STEP_S, self._look, loop, time.monotonic() + STEP_S)

    def _look(self, loop: asyncio.AbstractEventLoop, due_s: float) -> None:
        self._timer = None
        now_s = time.monotonic()
        late_s = max(0.0, now_s - due_s)
        while self._late and self._late[-1][1] <= late_s:
            self._late.pop()
        self._late.append((now_s, late_s))
        self._forget(now_s)
        if now_s - self._asked_s < UNASKED_S:
            self._wait(loop)

    def _forget(self, now_s: float) -> None:
        while self._late and self._late[0][0] < now_s - STEPS_LOOK_S:
            self._late.popleft()


def _of_hub(hub: Hub, *, is_ready: bool) -> Iterator[Metric]:
    counters = hub.intake.counters
    yield _gauge("twincast_ready", "Whether what is accepted now is stored: 1, or 0.", int(is_ready))
    yield _gauge("twincast_uptime_seconds", "How long the server has run.", hub.uptime_s)
    yield _gauge("twincast_devices", "Devices that have a value.", len(hub.state.twins))
    yield _gauge("twincast_position", "The seq of the newest entry.", hub.state.seq)
    yield _gauge("twincast_waiting_bytes", "What waits for the next commit.", hub.intake.waiting_bytes)
    yield _counter("twincast_readings_stored", "Readings that were stored.", counters.readings)
    yield _counter(
        "twincast_late_readings",
        "Of the readings, those that were measured before the newest one of their device.",
        counters.late_readings,
    )
    yield _counter(
        "twincast_clock_off_readings",
        "Of the readings, those whose device's clock was ahead of the server's.",
        counters.disbelieved_readings,
    )
    yield _counter("twincast_commands_stored", "Commands and deletions that were stored.", counters.commands)
    yield _counter("twincast_failed_commits", "Commits that the disk did not take.", counters.failed_commits)
    yield _histogram(
        "twincast_commit_seconds", "From the beginning of a commit until it was known to be stored.", counters.commit_s
    )
    yield _histogram("twincast_commit_entries", "How many entries a commit had.", counters.commit_entries)


def _of_journal(hub: Hub) -> Iterator[Metric]:
    space = hub.space()
    yield _histogram(
        "twincast_journal_sync_seconds",
        "Of a commit, writing it to the -wal and the fdatasync.",
        hub.journal_sync_s,
    )
    yield _gauge("twincast_journal_file_bytes", "Size of the journal's file.", space.file_bytes)
    yield _gauge("twincast_journal_wal_bytes", "Size of the -wal beside it.", space.wal_bytes)
    yield _gauge("twincast_journal_history_bytes", "Size of the closed part of the log.", space.history_bytes)
    yield _gauge("twincast_journal_used_bytes", "What is in use of the files, or of memory.", space.used_bytes)
    yield _gauge("twincast_journal_entries", "Changes that the log has.", space.entries)
    yield _gauge("twincast_journal_checkpoint_lag_entries", "Changes read anew at a start.", space.checkpoint_lag)
    yield _gauge(
        "twincast_journal_trim_problem", "Whether less is trimmed than is asked for.", int(bool(space.problem))
    )
    if space.oldest_at_utc is not None:
        oldest_s = datetime.fromisoformat(space.oldest_at_utc).timestamp()
        yield _gauge("twincast_journal_oldest_timestamp_seconds", "When the oldest of them was stored.", oldest_s)
    if space.disk_free_bytes is not None:
        yield _gauge("twincast_journal_disk_free_bytes", "Room on the journal's disk.", space.disk_free_bytes)
    if space.full_in_s is not None:
        yield _gauge("twincast_journal_full_in_seconds", "When the disk is full at this pace.", space.full_in_s)


def _of_nats(counters: Counters) -> Iterator[Metric]:
    yield _counter("twincast_nats_sent", "Events that went out to NATS.", counters.sent)
    passed_over = "Events that did not go out: no longer in the log, or too large for NATS."
    yield _counter("twincast_nats_passed_over", passed_over, counters.passed_over)
    yield _counter("twincast_nats_taken", "Readings and commands that came by NATS and were stored.", counters.taken)
    untold = "Messages that came by NATS, were refused, and wanted no answer; and answers that were lost."
    yield _counter("twincast_nats_untold", untold, counters.untold)


def _of_servers(servers: Servers) -> Iterator[Metric]:
    """Yield how many servers there are on a shared log, and how far this one is behind the newest."""
    members = [member.heartbeat for member in servers.members()]
    own = next(each for each in members if each.id == servers.own_id)
    seq, message = max(each.seq for each in members), max(each.stream_seq for each in members)
    yield _gauge("twincast_servers", "Servers on the shared log, with this one.", len(members))
    yield _gauge("twincast_behind_entries", "Entries that another server has and this one has not.", seq - own.seq)
    yield _gauge("twincast_behind_messages", "The same in messages of the stream.", message - own.stream_seq)
    yield _gauge("twincast_behind_seconds", "For how long there have been such entries.", servers.behind_s(own.seq))
    unstored = max(0, own.stream_seq - own.stored_stream_seq)
    yield _gauge(
        "twincast_copy_behind_messages", "How many messages this server's copy of the log is behind.", unstored
    )


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(name, documentation, value=value)


def _counter(name: str, documentation: str, value: float) -> Metric:
    return CounterMetricFamily(name, documentation, value=value)


def _info(name: str, documentation: str, value: dict[str, str]) -> Metric:
    return InfoMetricFamily(name, documentation, value=value)


def _histogram(name: str, documentation: str, counted: Histogram) -> Metric:
    buckets = [("+Inf" if bound == float("inf") else str(bound), float(count)) for bound, count in counted.buckets()]
    return HistogramMetricFamily(name, documentation, buckets=buckets, sum_value=counted.total)


def _by_code(name: str, documentation: str, counted: dict[str, int]) -> Metric:
    """Return a series for each code that there is, so that the first of a kind shows as an increase."""
    family = CounterMetricFamily(name, documentation, labels=["code"])
    for code in sorted({*_codes(TwincastError), *counted}):
        family.add_metric([code], counted.get(code, 0))
    return family


def _codes(error: type[TwincastError]) -> Iterator[str]:
    yield error.code
    for kind in error.__subclasses__():
        yield from _codes(kind)
