"""A missing program skips a test, with the reason; where nothing may be skipped it fails, so that CI hides nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tools
from tests.running import ROOT


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.usefixtures("nothing_installed")
def test_a_missing_program_skips_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "MUST_HAVE_ALL", False)
    with pytest.raises(pytest.skip.Exception, match=r"there is no nginx here: `scripts/test` installs it"):
        tools.program("nginx")
    with pytest.raises(pytest.skip.Exception, match="or set TWINCAST_NODE to its path"):
        tools.program("node", env="TWINCAST_NODE")


@pytest.mark.usefixtures("nothing_installed")
def test_where_nothing_may_be_skipped_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "MUST_HAVE_ALL", True)
    with pytest.raises(pytest.fail.Exception, match="there is no nginx here"):
        tools.program("nginx")
    assert tools.needs_root("to do as root does").args == (False,), "it runs, and fails by itself"


@pytest.mark.usefixtures("nothing_installed")
def test_a_program_is_found_by_its_variable_its_names_and_beside_the_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    beside = tmp_path / "sbin"
    beside.mkdir()
    found = beside / "second"
    found.touch(0o755)
    assert tools.program("first", "second", folders=(str(beside),)) == str(found)
    monkeypatch.setenv("TWINCAST_NODE", "/a/path")
    assert tools.program("node", env="TWINCAST_NODE") == "/a/path"


NEEDING = (
    "tests/test_deploy.py::test_the_unit_is_one_that_systemd_takes",
    "tests/stories/test_disk_failure.py::test_a_disk_that_is_full_at_the_start_is_said_in_one_line",
    "tests/transports/test_bundle.py::test_one_file_is_served_and_exports_what_the_modules_do",
)


def test_tests_that_need_a_program_are_skipped_and_the_reasons_are_listed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", *NEEDING]
    env = {**os.environ, "PATH": str(tmp_path), tools.ALL_ENV: ""}
    ran = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert ran.stdout.startswith("sss ") and ran.returncode == 0, ran.stdout
    assert all(f"there is no {name} here" in ran.stdout for name in ("systemd-analyze", "strace", "node"))


def test_ci_lets_nothing_be_skipped() -> None:
    assert f"export {tools.ALL_ENV}=1" in (ROOT / ".ci" / "run").read_text()
