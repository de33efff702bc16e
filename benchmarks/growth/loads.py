"""What grows around one reading: clients, devices, patterns, publishers, values, and clients that are behind."""

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Sequence
from itertools import cycle, islice
from typing import Any

import uvloop

from benchmarks.growth.curves import Dimension, Measured
from benchmarks.growth.inside import NOTHING, Client, Inside, LoopWatch, out_of_sight, reading, running

PUBLISHERS, FRAMES = 4, 6
"""As a busy server reads: some publishers, each with some readings in one read; together they are one batch."""
BATCH = PUBLISHERS * FRAMES
FILL_FRAMES = 200
IN_FLIGHT = 960
READ_BYTES = 16 * 1024

_Load = Callable[[int, float], Coroutine[Any, Any, Measured]]


def _run(load: _Load) -> Callable[[int, float], Measured]:
    def measure(point: int, seconds: float) -> Measured:
        return uvloop.run(load(point, seconds))

    return measure


def _in_turn(
    publishers: Sequence[Client], name_of: Callable[[int], str]
) -> Callable[[int], list[tuple[Client, bytes]]]:
    """Return what sends a batch of the devices whose turn it is."""

    def reads_of(turn: int) -> list[tuple[Client, bytes]]:
        first = turn * BATCH
        frames = [reading(name_of(n), b'{"n":%d,"ok":true}' % n) for n in range(first, first + BATCH)]
        return [
            (client, b"".join(frames[place * FRAMES : (place + 1) * FRAMES])) for place, client in enumerate(publishers)
        ]

    return reads_of


async def _fill(server: Inside, publisher: Client, names: Sequence[str]) -> None:
    """Give each device a reading."""
    for first in range(0, len(names), FILL_FRAMES):
        part = names[first : first + FILL_FRAMES]
        await server.submit([(publisher, b"".join(reading(name, b'{"n":0,"ok":true}') for name in part))], len(part))
    out_of_sight()


async def _of_subscribers(count: int, seconds: float) -> Measured:
    async with running() as server:
        publishers = await server.connected([NOTHING] * PUBLISHERS)
        await server.connected([""] * count)
        out_of_sight()
        turns = max(1, min(20, 20_000 // count))
        cost_us = await server.cost_us(
            _in_turn(publishers, lambda n: f"lab{n % 50}"), BATCH, seconds=seconds, turns=turns
        )
        return {"a delivery": cost_us / count}


async def _of_devices(count: int, seconds: float) -> Measured:
    measured = {}
    for curve, query in (("client on everything", ""), ("client on a pattern", "?devices=d*")):
        async with running() as server:
            publishers = await server.connected([NOTHING] * PUBLISHERS)
            await server.connected([query])
            await _fill(server, publishers[0], [f"d{n}" for n in range(count)])
            measured[curve] = await server.cost_us(
                _in_turn(publishers, lambda n: f"d{n % count}"), BATCH, seconds=seconds, turns=50
            )
    return measured


async def _of_hellos(count: int, seconds: float) -> Measured:
    async with running() as server:
        publisher, other = await server.connected([NOTHING] * 2)
        await _fill(server, publisher, [f"d{n}" for n in range(count)])
        return {
            "hello of everything": await _hello_us(server, other, "") / count,
            "hello of a pattern": await _hello_us(server, other, "?devices=d*") / count,
            "GET /api/data": await _get_us(server) / count,
        }


async def _of_steps(count: int, seconds: float) -> Measured:
    measured = {}
    async with running() as server:
        publisher, other = await server.connected([NOTHING] * 2)
        await _fill(server, publisher, [f"d{n}" for n in range(count)])
        for curve, query in (("hello of everything", ""), ("hello of a pattern", "?devices=d*")):
            async with LoopWatch() as watch:
                await _hello_us(server, other, query)
            measured[curve] = watch.longest_s * 1e3
        async with LoopWatch() as watch:
            await _get_us(server)
        measured["GET /api/data"] = watch.longest_s * 1e3
    return measured


async def _hello_us(server: Inside, publisher: Client, query: str) -> float:
    """Return what it costs until a new client has the state and a reading behind it; nothing is cached for it."""
    again = [(publisher, reading("d0", b"1"))]
    await server.submit(again, 1)
    began_s = time.process_time()
    client = server.connect(query)
    while not client.wire.has_update:
        await server.submit(again, 1)  # the state is only known to have come whole when a reading follows it
    cost_us = (time.process_time() - began_s) * 1e6
    client.leave()
    return cost_us


async def _get_us(server: Inside) -> float:
    """Return what one `GET /api/data` costs, from the request to the last byte of its answer."""
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": "/api/data", "raw_path": b"/api/data", "query_string": b"", "root_path": "",
        "headers": [(b"host", b"localhost")], "client": ("127.0.0.1", 50_000), "server": ("127.0.0.1", 80),
        "state": {},
    }  # fmt: skip
    size_bytes = 0

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        nonlocal size_bytes
        size_bytes += len(message.get("body", b""))

    began_s = time.process_time()
    await server.app(scope, receive, send)
    assert size_bytes > 0
    return (time.process_time() - began_s) * 1e6


async def _of_patterns(count: int, seconds: float) -> Measured:
    async with running() as server:
        publishers = await server.connected([NOTHING] * PUBLISHERS)
        await server.connected(f"?devices=group{n}/*" for n in range(count))
        reads_of = _in_turn(publishers, lambda n: f"group{n % count}/lamp")
        known_us = await server.cost_us(reads_of, BATCH, seconds=seconds, turns=max(50, min(500, count // BATCH)))
        began = time.monotonic_ns()  # names that no run before has used
        new_of = _in_turn(publishers, lambda n: f"group{n % count}/{began}-{n}")
        new_us = await server.cost_us(new_of, BATCH, seconds=seconds)
        return {
            "a reading": known_us,
            "the first reading of a device": new_us,
            "a join and a leave": await _join_us(server, count, seconds),
        }


async def _join_us(server: Inside, count: int, seconds: float) -> float:
    joins = 200
    began_s = time.process_time()
    for n in range(joins):
        client = server.connect(f"?devices=group{n % count}/new*")
        await asyncio.sleep(0)
        client.leave()
    await asyncio.sleep(0)
    return (time.process_time() - began_s) / joins * 1e6


async def _of_publishers(count: int, seconds: float) -> Measured:
    async with running() as server:
        await server.connected([""])
        publishers = await server.connected([NOTHING] * count)
        share = max(1, IN_FLIGHT // count)
        size = READ_BYTES // len(reading("lab00", b'{"n":1000000,"ok":true}'))

        def reads_of(turn: int) -> list[tuple[Client, bytes]]:
            reads = []
            for client in publishers:
                frames = [reading(f"lab{n % 50}", b'{"n":%d,"ok":true}' % (1_000_000 + turn + n)) for n in range(share)]
                reads += [(client, b"".join(islice(frames, at, at + size))) for at in range(0, share, size)]
            return reads

        return {"a reading": await server.cost_us(reads_of, share * count, seconds=seconds, turns=2)}


def _values(size: int) -> dict[str, Any]:
    """Return values of about so many bytes, of the kinds that devices send; names come to at most 1,024."""
    name_bytes = max(8, size // 500)
    samples = [{"t": n, "v": n * 1.5} for n in range(max(1, min(500, size // 16)))]
    return {
        "text": "x" * size,
        "integers": list(islice(cycle(range(1_000)), size // 4 + 1)),
        "decimals": [n / 8 for n in islice(cycle(range(800, 8_000)), size // 8 + 1)],
        "pairs": [[n, n + 1] for n in islice(cycle(range(100, 900)), size // 10 + 1)],
        "flat object": {f"k{n}": "x" * (name_bytes - 8) for n in range(max(1, size // name_bytes))},
        "objects": [{**sample, "x": "x" * max(0, size // len(samples) - 24)} for sample in samples[:340]],
    }


def _the_same(reads: list[tuple[Client, bytes]]) -> Callable[[int], list[tuple[Client, bytes]]]:
    return lambda _: reads


async def _of_values(size: int, seconds: float) -> Measured:
    measured = {}
    async with running() as server:
        await server.connected([""])
        publishers = await server.connected([NOTHING] * PUBLISHERS)
        for kind, value in _values(size).items():
            text = json.dumps(value, separators=(",", ":")).encode()
            frames = 1 if size > READ_BYTES else FRAMES
            data = reading("lab", text) * frames
            turns = max(1, min(50, 200_000 // size))
            cost_us = await server.cost_us(
                _the_same([(client, data) for client in publishers]),
                PUBLISHERS * frames,
                seconds=seconds / 2,
                turns=turns,
            )
            measured[kind] = cost_us / (len(text) / 1024)
    return measured


async def _of_behind(count: int, seconds: float) -> Measured:
    async with running() as server:
        publishers = await server.connected([NOTHING] * PUBLISHERS)
        await server.connected([""])
        for client in await server.connected([""] * count):
            client.fall_behind()
        turns = max(1, min(20, 10_000 // count))
        return {
            "a reading for each client that is behind": await server.cost_us(
                _in_turn(publishers, lambda n: f"lab{n % 50}"), BATCH, seconds=seconds, turns=turns
            )
            / count
        }


async def _of_debts(count: int, seconds: float) -> Measured:
    async with running(outbox_max_bytes=1 << 30) as server:
        publisher, slow = await server.connected([NOTHING, ""])
        names = [f"d{n}" for n in range(count)]
        await _fill(server, publisher, names)
        slow.fall_behind()
        await _fill(server, publisher, names)
        size_bytes, quiet = slow.wire.size_bytes, 0
        began_s = time.process_time()
        slow.read_on()
        while quiet < 3:  # turns of the loop in which nothing arrived
            await asyncio.sleep(0)
            quiet = quiet + 1 if slow.wire.size_bytes == size_bytes else 0
            size_bytes = slow.wire.size_bytes
        return {"a device that waits for a slow client": (time.process_time() - began_s) / count * 1e6}


_INSIDE = "in process: the real edge, session, hub and a journal in memory, clients on connections without a socket"

DIMENSIONS = (
    Dimension(
        "subscribers", "clients on everything", "CPU µs a delivery", f"{_INSIDE}; 4 publishers, batches of 24 readings",
        (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000), (1, 10, 100), _run(_of_subscribers),
    ),
    Dimension(
        "devices", "devices, each in its turn", "CPU µs a reading", f"{_INSIDE}; one client; batches of 24 readings",
        (1, 10, 100, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000), (10, 1_000), _run(_of_devices),
    ),
    Dimension(
        "hello", "devices", "CPU µs a device", f"{_INSIDE}; until a new client has the state and a reading behind it",
        (10, 100, 1_000, 10_000, 100_000, 1_000_000), (10, 1_000), _run(_of_hellos),
    ),
    Dimension(
        "steps", "devices", "longest step of the loop, CPU ms", f"{_INSIDE}; while a new client is given the state",
        (10, 100, 1_000, 10_000, 100_000, 1_000_000), (10, 1_000), _run(_of_steps),
    ),
    Dimension(
        "patterns", "clients, each on a pattern of its own", "CPU µs", f"{_INSIDE}; a join includes the handshake",
        (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000), (1, 100), _run(_of_patterns),
    ),
    Dimension(
        "publishers", "publishers", "CPU µs a reading", f"{_INSIDE}; one client, 960 readings in flight in all",
        (1, 3, 10, 30, 100, 300, 1_000), (1, 100), _run(_of_publishers),
    ),
    Dimension(
        "values", "bytes of a value", "CPU µs a KiB", f"{_INSIDE}; one client",
        (16, 64, 256, 1_024, 4_096, 16_384, 60_000), (64, 4_096), _run(_of_values),
    ),
    Dimension(
        "behind", "clients that are behind", "CPU µs a reading and client", f"{_INSIDE}; 50 devices, in mode `latest`",
        (1, 3, 10, 30, 100, 300, 1_000, 3_000, 8_000), (1, 100), _run(_of_behind),
    ),
    Dimension(
        "debt", "devices that wait for a slow client", "CPU µs a device", f"{_INSIDE}; until the client has them all",
        (10, 100, 1_000, 10_000, 100_000, 1_000_000), (10, 1_000), _run(_of_debts),
    ),
)  # fmt: skip
