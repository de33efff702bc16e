"""The programs of docs/inside.md run as they stand."""

import asyncio
import re
import runpy
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import warm
from tests.running import DEADLINE_S, ROOT, eventually, free_port
from tests.serving import serving
from twincast import Twincast
from twincast.client.sync import connect
from twincast.inside import Party

PAGE = (ROOT / "docs" / "inside.md").read_text()
PROGRAMS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
FILES = {found[1]: code for code in PROGRAMS if (found := re.match(r"# (\w+\.py)\n", code))}
SNIPPETS = [code for code in PROGRAMS if code not in FILES.values()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, code in FILES.items():
        (tmp_path / name).write_text(code)
    return tmp_path


@contextmanager
def uvicorn(folder: Path, application: str) -> Iterator[str]:
    """Run what the page says, in the folder of its programs."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", application, "--port", str(port)]
    process = warm.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    url = f"http://127.0.0.1:{port}"
    try:
        eventually(lambda: process.poll() is not None or _answers(url), "uvicorn answers")
        yield url
    finally:
        process.terminate()
        printed = process.communicate(timeout=DEADLINE_S)[0]
        assert "Traceback" not in printed, printed


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/openapi.json").is_success
    except httpx.TransportError:
        return False


def test_the_first_program_is_an_application_with_twincast_in_it(folder: Path) -> None:
    assert "```sh\nuvicorn lab:app\n```" in PAGE
    streaming = {"Accept": "text/event-stream"}
    with httpx.Client() as http, uvicorn(folder, "lab:app") as url, connect(f"{url}/twin") as client:
        # A stream that has no end, and keeps no server from its own.
        http.send(
            http.build_request("GET", f"{url}/twin/api/events", headers=streaming), stream=True
        ).raise_for_status()
        seq = httpx.post(f"{url}/lamp/door", params={"on": True}).json()["seq"]
        client.reached(seq)
        assert client.state["lab/door"].value == {"on": True}
        client.reached(client.publish("lab/lamp", {"on": False}))
        assert httpx.get(f"{url}/lamps").json() == {"lab/door": {"on": True}, "lab/lamp": {"on": False}}
    assert (folder / "lab.db").exists()


def program(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the application of a program, whose files lie in its folder."""
    monkeypatch.chdir(folder)
    return runpy.run_path(name)["app"]


def test_a_lifespan_of_ones_own_runs_it_and_watches(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(program(folder, "own_lifespan.py", monkeypatch)) as url, connect(f"{url}/twin") as client:
        client.publish("lab/door", "open")
        eventually(lambda: "lab/lamp" in client.state, "the lamp is lit")
        assert client.state["lab/lamp"].value == {"on": True}


def test_a_thread_publishes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(program(folder, "threads.py", monkeypatch)) as url:
        assert httpx.post(f"{url}/readings/oven").json() == 21.5


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
async def test_a_snippet_runs(number: int) -> None:
    twin = Twincast("memory:")
    names: dict[str, Any] = {"twin": twin}
    exec(f"async def example():\n{textwrap.indent(SNIPPETS[number], '    ')}", names)
    async with twin.running():
        await asyncio.wait_for(names["example"](), 20)
        assert twin.position.seq > 0


def test_the_test_passes_without_a_server(folder: Path) -> None:
    (folder / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_lab.py"]
    ended = warm.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert "1 passed" in ended.stdout, ended.stdout


def test_every_public_name_is_on_the_page() -> None:
    public = {name for kind in (Twincast, Party) for name in vars(kind) if not name.startswith("_")}
    for name in public | {"Event", "Gap", "Twin", "NotStarted", "Stopping", "not_started"}:
        assert re.search(rf"\b{name}\b", PAGE), name
    assert set(FILES) == {"lab.py", "own_lifespan.py", "threads.py", "test_lab.py"}


def test_more_than_one_worker_is_told_that_the_journal_is_in_use(folder: Path) -> None:
    command = [sys.executable, "-m", "uvicorn", "lab:app", "--port", str(free_port()), "--workers", "2"]
    process = warm.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    try:
        assert any("JournalInUse" in line and "in use by another server" in line for line in process.stdout)
    finally:
        process.terminate()
        process.communicate(timeout=DEADLINE_S)
