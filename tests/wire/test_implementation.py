"""Which implementation is in use is chosen once, and said."""

import os
import subprocess
import sys
from types import ModuleType

import pytest

from tests.running import ROOT
from twincast.wire import frames, implementation

PRINTED = """
from twincast.wire import frames, implementation, readings
print(implementation.NAME, readings.compiled is not None, frames.text.__module__)
print(implementation.described())
"""
WITHOUT = "import sys; sys.modules['twincast.wire.compiled'] = None\n"
"""As where it was not built: an import of it raises."""


def chosen(variable: str | None, before: str = "") -> list[str]:
    env = {name: text for name, text in os.environ.items() if name != "TWINCAST_PURE"}
    if variable is not None:
        env["TWINCAST_PURE"] = variable
    command = [sys.executable, "-c", before + PRINTED]
    return subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.mark.parametrize("variable", [None, "", "0", "false"])
def test_the_compiled_module_is_used_where_it_is(compiled: ModuleType, variable: str | None) -> None:
    assert chosen(variable) == ["compiled True twincast.wire.compiled", "read and written by the compiled module"]


@pytest.mark.parametrize("variable", ["1", "true"])
def test_python_alone_is_used_where_that_is_asked_for(variable: str) -> None:
    said = "read and written in Python alone, as TWINCAST_PURE asks"
    assert chosen(variable) == ["pure Python False twincast.wire.frames", said]


def test_python_alone_is_used_where_nothing_was_compiled() -> None:
    said = "read and written in Python; the compiled module, which is optional, is faster"
    assert chosen(None, WITHOUT) == ["pure Python False twincast.wire.frames", said]


def test_what_this_process_uses_is_what_it_says() -> None:
    assert (implementation.NAME == "compiled") == (implementation.compiled is not None)
    assert (frames.text is frames.text_in_python) == (implementation.compiled is None)
