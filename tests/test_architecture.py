"""Who may import whom, held by reading the source."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "twincast"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# Room -> the rooms that it may import besides itself. A room is a module or a package directly under twincast.
MAY_IMPORT: dict[str, set[str]] = {
    "version": set(),
    "errors": set(),
    "machine": set(),
    "extras": {"errors", "machine", "version"},
    "surroundings": {"errors"},
    "access": set(),
    "settings": {"errors", "access", "surroundings"},
    "simulation": set(),
    "core": {"errors", "access"},
    "journal": {"errors", "core", "machine"},
    "auth": {"errors", "core"},
    "admission": {"errors", "access", "core", "auth"},
    "tls": {"errors"},
    "self_signed": {"errors", "machine"},
    "lan": {"errors", "access"},
    "qr": set(),
    "first_key": {"errors", "machine", "core", "auth", "journal"},
    "exposure": {"errors", "access", "machine", "settings", "journal", "lan", "self_signed"},
    "welcome": {"errors", "stdio", "journal", "app", "exposure", "first_key", "qr"},
    "logs": {"errors"},
    "stdio": set(),
    "client": {"errors", "core", "machine", "version"},
    "replay": {"errors", "core", "journal"},
    "hub": {"errors", "core", "journal", "replay"},
    "metrics": {"errors", "core", "hub"},
    "transports": {"errors", "access", "core", "auth", "admission", "hub"},
    "fast": {"transports"},
    "app": {
        "errors",
        "metrics",
        "settings",
        "core",
        "auth",
        "admission",
        "journal",
        "hub",
        "transports",
        "logs",
        "version",
    },
    "inside": {"errors", "settings", "core", "hub", "client", "transports", "app"},
    # server assembles too: it is the one that knows whether the fast edge fits.
    "server": {"errors", "access", "machine", "settings", "tls", "logs", "app", "transports", "exposure", "welcome"},
    "commands": {"errors", "access", "qr", "machine", "stdio", "core", "auth", "journal", "client", "simulation"},
    "cli": {"errors", "extras", "stdio", "surroundings", "settings", "server", "client", "commands", "version"},
    "main": {"cli"},
    "testing": {"errors", "extras", "settings", "core", "auth", "journal", "hub", "app", "server", "client"},
    "pytest_plugin": {"testing"},
}
KNOW_THE_SETTINGS = {"settings", "app", "exposure", "inside", "server", "cli", "testing"}
PURE = {"asyncio", "socket", "ssl", "os", "pathlib", "time", "datetime", "threading", "logging", "random", "io", "uuid"}


def module_name(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


def modules_of(lines: list[str]) -> set[str]:
    """Return by which names the packages of requirements are imported."""
    names = {re.split(r"[<>=!~\[; ]", line)[0].replace("-", "_") for line in lines}
    other = {"pyjwt": "jwt", "python_dotenv": "dotenv"}
    return {other.get(name, name) for name in names}


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


def test_the_requirements_are_those_of_the_package_and_its_server() -> None:
    lines = sorted([*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["server"]])
    assert (ROOT / "requirements.txt").read_text().split("\n") == [*lines, ""]


BASE, SERVER = modules_of(PROJECT["dependencies"]), modules_of(PROJECT["optional-dependencies"]["server"])
DEVICE = {
    "errors",
    "machine",
    "extras",
    "surroundings",
    "access",
    "simulation",
    "core",
    "auth",
    "stdio",
    "client",
    "cli",
}
"""The rooms that a device uses, which has no server; of the commands, those that open no journal."""
OF_A_SERVER = {"twincast.auth.tokens", "twincast.auth.authority", "twincast.commands.keys", "twincast.commands.journal"}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_every_foreign_import_is_a_requirement_of_a_device_or_of_the_server(module: str) -> None:
    known = sys.stdlib_module_names | BASE | {"twincast"}
    is_for_a_device = room_of(module) in DEVICE | {"commands"} and module not in OF_A_SERVER
    if not is_for_a_device:
        known |= SERVER | {"anyio"}  # anyio comes with FastAPI, whose public interface shows it
    if module == "twincast.cli":
        known |= {"pydantic"}  # for its types
    if module == "twincast.pytest_plugin":  # which only pytest imports
        known |= {"pytest"}
    assert {name.split(".")[0] for name in imports_of(MODULES[module])} <= known
