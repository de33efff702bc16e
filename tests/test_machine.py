"""What differs between systems, seen on one by hiding what the others lack; the whole is in test_elsewhere.py."""

import getpass
import os
import resource
import sys
from pathlib import Path

import pytest

from tests.running import ROOT
from twincast import machine
from twincast.journal.sqlite.guard import _Held, _Named
from twincast.server import process
from twincast.settings import Settings


def test_without_limits_of_open_files_connections_have_a_bound_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "resource", None)
    assert machine.open_files_max() is None
    assert process._http_bounds(Settings()).connections_max == 13_107
    said = " ".join((ROOT / "docs" / "install.md").read_text().split())
    assert "the default is 13,107, or `TWINCAST_CONNECTIONS_MAX`" in said
    assert process._http_bounds(Settings(connections_max=7)).connections_max == 7


def test_a_limit_that_is_none_counts_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert machine.open_files_max() is None


def test_where_there_are_no_users_of_posix_names_are_said_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "pwd", None)
    monkeypatch.setenv("LOGNAME", "ada")
    assert machine.my_name() == machine.login_name() == "ada"
    assert machine.user_name(0) == "another user"
    monkeypatch.setattr(getpass, "getuser", _raise_import_error)
    monkeypatch.delattr(os, "getuid")
    assert machine.login_name() == "unknown"


def _raise_import_error() -> str:
    raise ImportError("No module named 'pwd'")


def test_words_are_quoted_for_the_shell_that_people_have(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.quoted("a b") == "'a b'"
    monkeypatch.setattr(sys, "platform", "win32")
    assert machine.quoted("a b") == '"a b"'


@pytest.mark.parametrize("kind", [_Held, _Named])
def test_a_file_is_watched_whether_it_is_held_or_only_named(kind: type[_Held | _Named], tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abcdef")
    file = kind(str(path))
    assert file.head(3) == b"abc" and file.has_name
    path.write_bytes(b"xyz")
    assert file.head(6) == b"xyz"
    path.unlink()
    assert not file.has_name
    file.close()
    file.close()
