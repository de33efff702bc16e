"""Every example of docs/client.md runs as it stands."""

import ast
import asyncio
import importlib
import inspect
import itertools
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

from twincast.client import connect
from twincast.testing import Server

PAGE = (Path(__file__).parents[2] / "docs" / "client.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
async def test_an_example_runs(
    number: int, twincast_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = EXAMPLES[number].replace("http://127.0.0.1:8000", twincast_server.url)
    names: dict[str, Any] = {"connect": connect}
    if "async with" in code:
        exec(f"async def example():\n{textwrap.indent(code, '    ')}", names)
        await asyncio.wait_for(names["example"](), 20)
    else:
        await asyncio.wait_for(asyncio.to_thread(exec, code, names), 20)
    assert twincast_server.log(), "each example publishes something"


def test_every_public_name_is_on_the_page() -> None:
    import twincast.client  # noqa: PLC0415
    from twincast.client import Client  # noqa: PLC0415

    unsaid = {"close", "stop_listening", "connection", "is_connected"}
    verbs = {name for name in vars(Client) if not name.startswith("_")} - unsaid
    for name in verbs | {"Command", "Deletion", "Event", "Gap", "LateReading", "Link", "Reading", "Rest", "Twin"}:
        assert re.search(rf"\b{name}\b", PAGE), name
    types = {"Backlog", "Client", "Command", "CommandListener", "Deletion", "Event", "Gap", "LateReading", "Link"}
    types |= {"Reading", "Twin"}
    past = {"Buckets", "History", "PastEntry", "StateAt"}
    assert all(re.search(rf"\b{name}\b", PAGE) for name in past)
    types |= past
    assert set(twincast.client.__all__) == types | {"Rest", "Watch", "connect", "error_of", "http_url", "pair"}


@pytest.mark.parametrize("module", ["client", "client.sync", "testing"])
def test_the_example_in_a_docstring_is_python(module: str) -> None:
    text = inspect.getdoc(importlib.import_module(f"twincast.{module}")) or ""
    lines = itertools.dropwhile(lambda line: not line.startswith("    "), text.split("\n"))
    example = itertools.takewhile(lambda line: not line or line.startswith("    "), lines)
    compiled = compile(textwrap.dedent("\n".join(example)), module, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    assert compiled.co_names, "there is an example"
