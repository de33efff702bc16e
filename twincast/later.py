"""What is imported when something of it is used, for what most programs never use: so that a command starts at once.

A name of a module, with the import beside it that type checkers read, and the test of who may import whom:

    if TYPE_CHECKING:
        from importlib import metadata
    else:
        metadata = later("importlib.metadata")

A package's public names, from the modules where they are:

    __getattr__ = names(__name__, {"Rest": "rest"})
"""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def later(name: str) -> Any:
    """Return a module that is imported when something of it is used."""
    return _Later(name)


class _Later:
    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(import_module(self._name), attribute)


def names(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a package's `__getattr__` (PEP 562).

    Args:
        package: the package's name.
        homes: for each name the module of the package where it is.
    """

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = getattr(import_module(f"{package}.{homes[name]}"), name)
        setattr(sys.modules[package], name, found)  # it is found without us from now on
        return found

    return find
