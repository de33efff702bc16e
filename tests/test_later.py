"""What is imported when it is used: at once it costs nothing, later it is what an import would have been."""

import ast
import subprocess
import sys

import pytest

import twincast.client
from tests.test_architecture import MODULES
from twincast.later import later, names

IS_CHECKED = "what is imported later stands beside it as an import, under TYPE_CHECKING"


def test_a_module_is_imported_when_something_of_it_is_used() -> None:
    program = """
import sys
from twincast.later import later
shelf = later("shelve")
print("shelve" in sys.modules)
print(shelf.open is __import__("shelve").open)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "True"]


def test_what_is_missing_is_missing_when_it_is_used() -> None:
    gone = later("twincast.gone")
    with pytest.raises(ModuleNotFoundError):
        gone.anything  # noqa: B018
    with pytest.raises(AttributeError):
        later("json").gone  # noqa: B018


def test_a_package_finds_its_names_where_they_are() -> None:
    find = names("twincast.client", {"http_url": "address"})
    assert find("http_url") is twincast.client.http_url
    with pytest.raises(AttributeError, match=r"module 'twincast\.client' has no attribute 'gone'"):
        find("gone")


def test_the_client_has_every_name_that_it_shows() -> None:
    assert set(dir(twincast.client)) >= set(twincast.client.__all__)
    for name in twincast.client.__all__:
        assert getattr(twincast.client, name).__module__.startswith("twincast.client.") or name in {"Event"}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_that_is_imported_later_is_known_to_type_checkers_and_to_the_test_of_imports(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    wanted = {ast.literal_eval(call.args[0]) for call in calls if getattr(call.func, "id", "") == "later"}
    shown: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for each in node.body:
                if isinstance(each, ast.Import):
                    shown |= {alias.name for alias in each.names}
                elif isinstance(each, ast.ImportFrom):
                    shown |= {f"{each.module}.{alias.name}" for alias in each.names}
    assert wanted <= shown, IS_CHECKED
