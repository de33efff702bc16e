"""What all tests wait by, and the ports that they get."""

import ast
import socket
from itertools import combinations
from pathlib import Path

import httpx
import pytest

from tests.running import DEADLINE_S, PORTS, ROOT, WORKERS_MAX, free_port, ports_of

RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
SHORTER = {"eventually", "eventually_async"}
"""The kit's own deadline is for those who wait at a terminal; these tests wait by `tests/running.py`."""
OF_THE_KIT = {"tests/running.py", "tests/testing/test_kit.py"}


def test_workers_that_run_at_once_have_no_port_together() -> None:
    shares = [ports_of(name) for name in ("", *(f"gw{number}" for number in range(WORKERS_MAX - 1)))]
    assert all(set(share) <= set(PORTS) and len(share) >= 1_000 for share in shares)
    assert not any(set(one) & set(other) for one, other in combinations(shares, 2))


@pytest.mark.skipif(not RANGE.exists(), reason="the system does not say which ports it gives away")
def test_no_program_is_given_one_of_these_ports_that_asks_for_any() -> None:
    assert PORTS.stop <= int(RANGE.read_text().split()[0])


def test_a_port_is_not_given_out_again_soon_and_not_while_something_listens() -> None:
    first = free_port()
    assert first not in [free_port() for _ in range(1_000)]
    seen = set[int]()
    with socket.create_server(("127.0.0.1", free_port())) as listener:
        for _ in range(len(ports_of(""))):
            seen.add(free_port())
        assert listener.getsockname()[1] not in seen


@pytest.mark.parametrize("kind", [httpx.Client, httpx.AsyncClient])
def test_an_answer_is_waited_for_as_long_as_everything_else(kind: type[httpx.Client | httpx.AsyncClient]) -> None:
    assert kind().timeout == httpx.Timeout(DEADLINE_S)


def test_every_test_waits_as_long_as_a_busy_machine_may_take() -> None:
    for path in sorted((ROOT / "tests").rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        imports = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        named = {alias.name for node in imports if node.module == "twincast.testing" for alias in node.names}
        assert name in OF_THE_KIT or not named & SHORTER, f"{name} waits by the kit's deadline"
