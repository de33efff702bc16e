"""What is built: a wheel for everyone, and, where that is asked for, one with the compiled module (hatch_build.py)."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.running import ROOT
from tests.tools import lacking, program

ASKED = "TWINCAST_COMPILE"
COMPILED = f"twincast/wire/compiled{sysconfig.get_config_var('EXT_SUFFIX')}"
NAMED = "from twincast.wire import implementation as it; print(it.NAME, getattr(it.compiled, '__file__', ''))"


def build(folder: Path, target: str, **env: str) -> Path:
    """Build from a copy of the checkout, for a build may not leave anything in it; return what was built."""
    if not all(shutil.which(name, path=Path(sys.executable).parent) for name in ("hatchling", "cython")):
        lacking("hatchling or Cython is not here: `scripts/install test` brings them")
    source = folder / "source"
    if not source.exists():
        names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for name in filter(None, names.split("\0")):
            if name.startswith(("twincast/", "docs/")) or "/" not in name:
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, source / name)
        (source / COMPILED).write_bytes(b"of this machine alone")
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder / target)]
    env = {**{name: text for name, text in os.environ.items() if name != ASKED}, **env}
    ran = subprocess.run(command, cwd=source, env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (built,) = (folder / target).iterdir()
    return built


def test_a_wheel_is_for_everyone_and_takes_no_compiler(tmp_path: Path) -> None:
    built = build(tmp_path, "wheel", PATH="", CC="/nowhere/cc")
    assert built.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(built) as wheel:
        names = wheel.namelist()
        wheel.extractall(tmp_path / "installed")
    assert not [name for name in names if name.endswith((".so", ".c"))] and "twincast/wire/implementation.py" in names
    ran = subprocess.run(
        [sys.executable, "-c", NAMED], cwd=tmp_path / "installed", capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "pure Python"


def test_a_wheel_with_the_compiled_module_is_for_one_python_and_system(tmp_path: Path) -> None:
    program("cc", "gcc", env="CC")
    built = build(tmp_path, "wheel", **{ASKED: "1"})
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert re.search(rf"-{tag}-{tag}-\w+\.whl$", built.name), built.name
    installed = tmp_path / "installed"
    with zipfile.ZipFile(built) as wheel:
        assert wheel.namelist().count(COMPILED) == 1 and not [name for name in wheel.namelist() if name.endswith(".c")]
        wheel.extractall(installed)
    for pure, said in (("", f"compiled {installed / COMPILED}"), ("1", "pure Python")):
        env = {**os.environ, "TWINCAST_PURE": pure}
        command = [sys.executable, "-c", NAMED]
        ran = subprocess.run(command, cwd=installed, env=env, capture_output=True, text=True, check=True)
        assert ran.stdout.strip() == said


def test_the_source_has_what_is_compiled_and_what_compiles_it(tmp_path: Path) -> None:
    with tarfile.open(build(tmp_path, "sdist")) as source:
        names = {name.partition("/")[2] for name in source.getnames()}
    assert {"hatch_build.py", "twincast/wire/compiled.pyx", "pyproject.toml"} <= names
    assert COMPILED not in names


@pytest.mark.parametrize("asked", [None, "", "0", "1"])
def test_a_build_takes_cython_only_where_that_is_asked_for(asked: str | None) -> None:
    env = {name: text for name, text in os.environ.items() if name != ASKED}
    if asked is not None:
        env[ASKED] = asked
    told = "import hatchling.build as build; print(*build.get_requires_for_build_wheel(), sep='\\n')"
    ran = subprocess.run([sys.executable, "-c", told], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    lines = set(ran.stdout.split("\n")) - {""}
    tests_have = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["test"]
    assert lines == (
        {line for line in tests_have if line.startswith(("cython", "setuptools"))} if asked == "1" else set()
    )
