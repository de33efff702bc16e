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
    "stdio": set(),
    "later": set(),
    "pure": set(),
    "console": set(),
    "logs": {"errors"},
    "extras": {"errors", "later", "machine", "version"},
    "environment": {"errors", "later"},
    "settings": {"errors", "machine", "access", "environment"},
    "core": {"errors"},
    "wire": {"errors", "pure", "core"},
    "delivery": {"errors", "core", "wire"},
    "access": {"errors", "core"},
    "history": {"errors", "core"},
    "journal": {"errors", "later", "machine", "extras", "core", "wire", "history"},
    "cluster": {"errors", "machine", "extras", "core", "wire", "access", "journal"},
    "hub": {"errors", "core", "wire", "history", "delivery", "journal"},
    "transports": {"errors", "later", "logs", "core", "wire", "history", "delivery", "access", "hub"},
    "lifespan": {"errors", "later", "settings", "core", "wire", "access", "journal", "cluster", "hub", "transports"},
    "app": {
        "version",
        "errors",
        "later",
        "logs",
        "settings",
        "core",
        "wire",
        "delivery",
        "access",
        "journal",
        "hub",
        "transports",
        "lifespan",
    },
    "inside": {"errors", "settings", "core", "wire", "delivery", "access", "hub", "client", "transports", "app"},
    "server": {
        "version",
        "errors",
        "later",
        "machine",
        "stdio",
        "console",
        "environment",
        "logs",
        "settings",
        "core",
        "wire",
        "delivery",
        "access",
        "journal",
        "cluster",
        "hub",
        "transports",
        "app",
    },
    "fast": {"server", "transports"},
    "client": {"version", "errors", "later", "machine", "core", "wire"},
    "cli": {
        "version",
        "errors",
        "later",
        "extras",
        "machine",
        "stdio",
        "console",
        "environment",
        "settings",
        "core",
        "wire",
        "access",
        "journal",
        "cluster",
        "client",
        "server",
    },
    "main": {"cli"},
    "testing": {
        "errors",
        "extras",
        "settings",
        "core",
        "wire",
        "delivery",
        "access",
        "journal",
        "cluster",
        "hub",
        "transports",
        "app",
        "server",
        "client",
    },
    "pytest_plugin": {"testing"},
}
KINDS = {
    "journal": ("memory", "sqlite"),
    "transports": ("rest", "events", "websocket", "pages", "scrape", "health", "nats"),
}
"""In these rooms, what is one of several of its kind: a module or a folder, which imports none of the others."""
PURE_ROOMS = {"core", "wire", "history", "delivery"}
PURE_MODULES = {f"twincast.access.{name}" for name in ("addresses", "hosts", "origin", "request", "rates", "limits")}
KNOW_THE_SETTINGS = {"settings", "lifespan", "app", "inside", "server", "cli", "testing"}
PURE = {"asyncio", "socket", "ssl", "os", "pathlib", "time", "threading", "logging", "random", "io", "uuid"}
CLOCKS = {"now", "utcnow", "today"}
"""Of `datetime`, whose times may be reckoned with everywhere."""


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


@pytest.mark.parametrize("module", sorted(PURE_MODULES | {name for name in MODULES if room_of(name) in PURE_ROOMS}))
def test_a_pure_room_knows_no_event_loop_clock_socket_or_file(module: str) -> None:
    imported = {name.split(".")[0] for name in imports_of(MODULES[module])}
    assert not imported & PURE
    assert imported <= sys.stdlib_module_names | {"twincast", "msgspec", "idna"}
    nodes = list(ast.walk(ast.parse(MODULES[module].read_text())))
    called = {node.id for node in nodes if isinstance(node, ast.Name)}
    assert not called & {"open", "print", "input"}
    if "datetime" in imported:
        assert not CLOCKS & {node.attr for node in nodes if isinstance(node, ast.Attribute)}


def kind_of(module: str, room: str) -> str | None:
    """Return which kind of a room a module belongs to; None for what the kinds share."""
    parts = module.split(".")
    return parts[2] if parts[1:2] == [room] and len(parts) > 2 and parts[2] in KINDS[room] else None


@pytest.mark.parametrize(("room", "kind"), [(room, kind) for room, kinds in KINDS.items() for kind in kinds])
def test_those_of_one_kind_do_not_import_one_another(room: str, kind: str) -> None:
    ours = [module for module in MODULES if kind_of(module, room) == kind]
    assert ours
    imported = {kind_of(other, room) for module in ours for other in OURS[module]}
    assert imported <= {kind, None}


def test_the_requirements_are_those_of_the_package_and_its_server() -> None:
    lines = sorted([*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["server"]])
    assert (ROOT / "requirements.txt").read_text().split("\n") == [*lines, ""]


BASE, SERVER = modules_of(PROJECT["dependencies"]), modules_of(PROJECT["optional-dependencies"]["server"])
CLUSTER = {"nats"}  # of the extra `cluster`: nats-py, which is imported by another name
DEVICE = {
    "version",
    "errors",
    "machine",
    "extras",
    "environment",
    "later",
    "pure",
    "stdio",
    "console",
    "core",
    "wire",
    "access",
    "client",
    "cli",
}
"""The rooms that a device uses, which has no server."""
OF_A_SERVER = {
    "twincast.access.jwks",
    "twincast.access.tokens",
    "twincast.access.authenticator",
    "twincast.cli.serve",
    "twincast.cli.keys",
    "twincast.cli.journal",
}
"""What of these rooms a device does not load."""


@pytest.mark.parametrize("module", sorted(MODULES))
def test_every_foreign_import_is_a_requirement_of_a_device_or_of_the_server(module: str) -> None:
    known = sys.stdlib_module_names | BASE | {"twincast"}
    is_for_a_device = room_of(module) in DEVICE and module not in OF_A_SERVER
    if not is_for_a_device:
        known |= SERVER | {"anyio"}  # anyio comes with FastAPI, whose public interface shows it
    if module == "twincast.journal.jetstream.link":  # no other module meets the library
        known |= {"nats", "nkeys"}
    if module == "twincast.pytest_plugin":  # which only pytest imports
        known |= {"pytest"}
    assert {name.split(".")[0] for name in imports_of(MODULES[module])} <= known


PAGE = (ROOT / "ARCHITECTURE.md").read_text()
ROOMS = PAGE.partition("## Rooms")[2].partition("\n## ")[0]


def test_the_architecture_page_has_this_table() -> None:
    rows = re.findall(r"^\| `([\w.]+?)(?:\.py|/)` \| .+ \| ?(.*?) ?\|$", ROOMS, re.MULTILINE)
    shown = {room: set(imports.split(", ")) - {""} for room, imports in rows if room in MAY_IMPORT}
    assert shown == {room: imports for room, imports in MAY_IMPORT.items() if room not in {"version", "main"}}


@pytest.mark.parametrize(
    "path", sorted({path.removesuffix(".py") for path in re.findall(r"`([a-z_]+/[\w/.]+)`", PAGE)})
)
def test_what_the_architecture_page_names_is_there(path: str) -> None:
    roots = (ROOT, PACKAGE)
    assert any((root / name).exists() for root in roots for name in (path, f"{path}.py")), path
