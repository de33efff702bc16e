"""What a device installs, and what it is told that it lacks; the wheel itself is tried by `scripts/smoke`."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.test_architecture import BASE, SERVER
from twincast import extras
from twincast.errors import ExtraMissing

ROOT = Path(__file__).parents[1]
INSTALLED_BY_NAME = re.compile(r"pipx? install (?:-\S+ )*[\"']?twincast\b(?!-\d)|pypi\.org/project/twincast")
WITHOUT_SERVER = f"""
import sys
class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {sorted(SERVER - BASE)!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Refusing())
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name in {sorted(SERVER)!r} else found(name, *rest)
"""


def as_on_a_device(program: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process that has none of the server's packages."""
    command = [sys.executable, "-c", f"{WITHOUT_SERVER}\n{program}", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_the_client_and_the_commands_take_nothing_of_the_server() -> None:
    ran = as_on_a_device("import twincast.client, twincast.client.sync, twincast.cli.main as cli; cli.main()", "--help")
    assert ran.returncode == 0, ran.stderr
    for name in ("send", "get", "watch", "status", "control", "delete", "audit", "host", "simulate", "serve", "keys"):
        assert f" {name} " in ran.stdout


@pytest.mark.parametrize("words", ["serve", "serve --port 0", "serve --help", "keys list", "journal info"])
def test_what_takes_the_server_says_the_line_that_brings_it(words: str) -> None:
    ran = as_on_a_device("from twincast.cli.main import main; main()", *words.split())
    assert ran.returncode == 1 and ran.stdout == ""
    said, line = ran.stderr.splitlines()
    assert said.startswith(f"twincast: twincast {words.split(maxsplit=1)[0]} takes packages that are not installed, ")
    assert line == f'  {sys.executable} -m pip install --editable "{ROOT}[server]"'


def test_the_test_kit_says_the_line_that_brings_it() -> None:
    ran = as_on_a_device("import twincast.testing")
    assert "ExtraMissing: twincast.testing takes packages" in ran.stderr and "[testing]" in ran.stderr


def test_the_application_says_the_line_that_brings_it() -> None:
    ran = as_on_a_device("from twincast import Twincast")
    assert "ExtraMissing: twincast.Twincast takes packages" in ran.stderr and "[server]" in ran.stderr


@pytest.fixture
def origin(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], None]:
    """Have pip's note of where twincast came from be a text; None for no note."""

    class Installed:
        def __init__(self, text: str | None) -> None:
            self._text = text

        def read_text(self, _: str) -> str | None:
            return self._text

    return lambda text: monkeypatch.setattr("importlib.metadata.distribution", lambda _: Installed(text))


def test_a_wheel_is_named_where_it_lies(tmp_path: Path, origin: Callable[[str | None], None]) -> None:
    wheel = tmp_path / "a folder" / extras.WHEEL
    wheel.parent.mkdir()
    wheel.touch()
    origin(json.dumps({"url": wheel.as_uri(), "archive_info": {}}))
    assert extras.install_line("server").endswith(f'-m pip install "{wheel}[server]"')


@pytest.mark.parametrize(
    "note",
    [
        None,
        "nonsense",
        '{"url": "file:///nowhere/twincast-0.1.0-py3-none-any.whl"}',
        '{"url": "https://twin.example.org/twincast.git", "vcs_info": {}}',
    ],
)
def test_a_wheel_that_is_not_there_is_named_as_the_one_to_fetch(
    note: str | None, origin: Callable[[str | None], None]
) -> None:
    origin(note)
    assert extras.install_line("server").endswith(f'install "{extras.WHEEL}[server]"')


def test_where_there_is_no_pip_uv_installs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda _: None)
    assert extras.install_line("server").startswith(f"uv pip install --python {sys.executable} ")


def missing(name: str) -> None:
    """Import what is not there."""
    with extras.needed("a test"):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_only_what_another_project_makes_is_to_be_installed() -> None:
    with pytest.raises(ExtraMissing, match=r"a test takes packages that are not installed, fastapi"):
        missing("fastapi")
    for name in ("twincast.gone", "termios"):
        with pytest.raises(ModuleNotFoundError):
            missing(name)


@pytest.mark.parametrize("extra", ["server", "testing"])
def test_the_extras_that_are_named_exist(extra: str) -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert f"\n{extra} = [" in text


def test_no_text_says_that_an_index_has_the_package() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    names = [name for name in listed.splitlines() if os.path.splitext(name)[1] not in {".svg", ".png", ".woff2"}]
    said = {}
    for name in names:
        text = (ROOT / name).read_text(errors="replace") if (ROOT / name).is_file() else ""
        if name != "tests/test_extras.py" and INSTALLED_BY_NAME.search(text):
            said[name] = INSTALLED_BY_NAME.search(text)
    assert names and not said
