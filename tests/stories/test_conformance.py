"""RFC 6455 by the Autobahn cases, on both edges, with an echo for a conversation. docs/conformance.md tells of it."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.running import ROOT

CASES = 301
"""All of the suite's but those of compression."""
SECONDS_MAX = 120
PASSES = {"OK", "NON-STRICT", "INFORMATIONAL"}
KNOWN = {"picows": {"7.1.2"}, "portable": {"7.1.5"}}
"""What does not pass, by edge; docs/conformance.md has the reasons."""


@pytest.fixture
def echo_port(edge: str) -> Iterator[int]:
    """Run the echo on an edge, and give its port."""
    command = [sys.executable, "-m", "tests.echo_server", edge]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


def test_every_case_passes_or_is_known_with_its_reason(edge: str, echo_port: int) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "tests.conformance", str(echo_port)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    ended = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(ended) == CASES, result.stderr
    failed = {case for case, behavior, close in ended if behavior not in PASSES or close not in PASSES}
    assert failed == KNOWN[edge]


def test_the_page_lists_what_does_not_pass() -> None:
    page = (ROOT / "docs" / "conformance.md").read_text()
    listed = re.findall(r"^\| (fast|portable) \| ([\d.]+) \|", page, re.MULTILINE)
    assert sorted(listed) == sorted(
        ({"picows": "fast"}.get(edge, edge), case) for edge, cases in KNOWN.items() for case in cases
    )
    assert f"{CASES} cases" in page
