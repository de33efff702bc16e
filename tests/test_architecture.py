"""Who may import whom, held by reading the source."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "twincast"

# Room -> the rooms that it may import besides itself. A room is a module or a package directly under twincast.
MAY_IMPORT: dict[str, set[str]] = {
    "version": set(),
    "errors": set(),
    "access": set(),
    "settings": {"errors", "access"},
    "simulation": set(),
    "core": {"errors", "access"},
    "journal": {"errors", "core"},
    "auth": {"errors", "core"},
    "admission": {"errors", "access", "core", "auth"},
    "tls": {"errors"},
    "logs": {"errors"},
    "stdio": set(),
    "client": {"errors", "core", "version"},
    "replay": {"errors", "core", "journal"},
    "hub": {"errors", "core", "journal", "replay"},
    "transports": {"errors", "access", "core", "auth", "admission", "hub"},
    "fast": {"transports"},
    "app": {"errors", "settings", "core", "auth", "admission", "journal", "hub", "transports", "logs", "version"},
    "inside": {"errors", "settings", "core", "hub", "client", "transports", "app"},
    # server assembles too: it is the one that knows whether the fast edge fits.
    "server": {"errors", "access", "settings", "journal", "tls", "logs", "stdio", "app", "transports"},
    "commands": {"errors", "stdio", "core", "auth", "journal", "client", "simulation"},
    "cli": {"errors", "stdio", "settings", "server", "client", "commands", "version"},
    "main": {"cli"},
    "testing": {"errors", "settings", "core", "auth", "journal", "hub", "app", "server", "client"},
    "pytest_plugin": {"testing"},
}
KNOW_THE_SETTINGS = {"settings", "app", "inside", "server", "cli", "testing"}
PURE = {"asyncio", "socket", "ssl", "os", "pathlib", "time", "datetime", "threading", "logging", "random", "io", "uuid"}


def module_name(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


def imports_of(path: Path) -> set[str]:
    """Return the modules that a file imports, wherever it does; a name of a package counts as its module."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute, so that this test reads them"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in MODULES else str(node.module))
    return found


OURS = {name: {other for other in imports_of(path) if other in MODULES} for name, path in MODULES.items()}


def room_of(module: str) -> str:
    """Return the room of a module; `twincast` itself holds nothing but the version."""
    parts = module.split(".")
    return "version" if len(parts) == 1 else parts[1].strip("_")


def test_every_module_stands_in_a_room_of_the_table() -> None:
    assert {room_of(module) for module in MODULES} == set(MAY_IMPORT)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_what_its_room_may(module: str) -> None:
    rooms = {room_of(other) for other in OURS[module]} - {room_of(module)}
    assert rooms <= MAY_IMPORT[room_of(module)]


def test_no_import_goes_in_a_circle() -> None:
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        if module not in done:
            for other in OURS[module]:
                visit(other, (*path, module))
            done.add(module)

    for module in OURS:
        visit(module, ())
    assert done == set(MODULES)


def test_only_those_who_assemble_know_the_settings() -> None:
    assert {room_of(module) for module in MODULES if "twincast.settings" in OURS[module]} <= KNOW_THE_SETTINGS


@pytest.mark.parametrize("module", sorted(module for module in MODULES if room_of(module) == "core"))
def test_the_core_knows_no_event_loop_clock_socket_or_file(module: str) -> None:
    imported = {name.split(".")[0] for name in imports_of(MODULES[module])}
    assert not imported & PURE
    assert imported <= sys.stdlib_module_names | {"twincast", "msgspec"}
    called = {node.id for node in ast.walk(ast.parse(MODULES[module].read_text())) if isinstance(node, ast.Name)}
    assert not called & {"open", "print", "input"}


@pytest.mark.parametrize("room", ["transports", "journal"])
def test_those_of_one_kind_do_not_import_one_another(room: str) -> None:
    shared = {
        "twincast.transports.asgi",
        "twincast.transports.head",
        "twincast.transports.idle",
        "twincast.transports.unframed",
        "twincast.transports.operation",
        "twincast.transports.pages",
        "twincast.transports.asyncapi",
        "twincast.transports.schemas",
        "twincast.journal.window",
        "twincast.journal.retention",
    }
    parts = "twincast.journal.sqlite_"  # of one kind
    kinds = {
        module for module in MODULES if module.startswith(f"twincast.{room}.") and not module.startswith(parts)
    } - shared
    for kind in kinds:
        assert not OURS[kind] & kinds


def test_the_requirements_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (ROOT / "requirements.txt").read_text().split("\n") == [*project["dependencies"], ""]


def test_every_foreign_import_of_the_package_is_a_requirement() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = {re.split(r"[<>=!~\[ ]", line)[0].replace("-", "_") for line in project["dependencies"]}
    # starlette and anyio come with FastAPI, whose public interface shows them.
    known = sys.stdlib_module_names | required | {"twincast", "starlette", "anyio", "jwt"}  # jwt is PyJWT
    plugin = {"pytest"}  # only pytest imports the plugin
    for module, path in MODULES.items():
        allowed = known | plugin if module == "twincast.pytest_plugin" else known
        assert {name.split(".")[0] for name in imports_of(path)} <= allowed, module
