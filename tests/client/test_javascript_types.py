"""The JavaScript client's types: true to what the server says, and good for TypeScript."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.client.node_client import CLIENT, node
from tests.client.npm import node_modules
from twincast.transports.documents import shapes
from twincast.transports.documents.conversation import TO_CLIENT

HERE = Path(__file__).parent
TOLD = {
    "data_update": "DataUpdate",
    "control": "Control",
    "deleted": "Deleted",
    "late": "Late",
    "ack": "Ack",
    "pong": "Pong",
}
TOLD |= {"echo": "Echo", "error": "ErrorMessage"}
INNER = {"hello", "snapshot", "gap", "auth_required"}
"""What the client takes itself."""


def typedefs() -> dict[str, set[str]]:
    """Return the fields of each type in messages.js; those that may be missing in brackets."""
    text = (CLIENT.parent / "messages.js").read_text()
    blocks = re.findall(r"@typedef \{object\} (\w+)\n((?: \* @property .*\n)+)", text)
    return {name: set(re.findall(r"@property \{.*?\} (\S+)", fields)) for name, fields in blocks}


def fields_of(schema: Any) -> set[str]:
    said = {name for name, field in schema["properties"].items() if name in schema["required"] or "default" in field}
    return said | {f"[{name}]" for name in schema["properties"].keys() - said}


def test_the_types_are_those_of_the_wire() -> None:
    wire = shapes.components(*TO_CLIENT)
    kinds = {str(kind.__struct_config__.tag): kind.__name__ for kind in TO_CLIENT}
    assert set(TOLD) | INNER == set(kinds)
    types = typedefs()
    for tag, name in TOLD.items():
        merged = {"[merged]"} if tag in {"data_update", "deleted"} else set()
        assert types[name] == fields_of(wire[kinds[tag]]) | merged, name
    assert types["Twin"] == fields_of(wire["Twin"])


def compile_(folder: Path, **options: Any) -> str:
    """Check what lies in a folder, and return what is wrong with it."""
    modules = node_modules()
    shutil.copytree(CLIENT.parent, folder, dirs_exist_ok=True)
    shutil.copy(HERE / "typed_program.ts", folder)
    how = {"target": "es2024", "lib": ["es2024", "dom", "dom.iterable"], "module": "nodenext", "types": []}
    config = {"compilerOptions": {**how, "allowJs": True, "noEmit": True, **options}, "files": ["typed_program.ts"]}
    (folder / "tsconfig.json").write_text(json.dumps(config))
    command = [node(), str(modules / "typescript" / "bin" / "tsc"), "-p", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False).stdout


def test_a_typed_program_passes_and_its_mistakes_do_not(tmp_path: Path) -> None:
    assert compile_(tmp_path, strict=True) == ""


def test_the_client_keeps_its_own_types(tmp_path: Path) -> None:
    assert compile_(tmp_path, checkJs=True, strict=False, strictNullChecks=False) == ""


@pytest.mark.parametrize("form", ["EventTarget", "EventEmitter"])
def test_a_refused_connection_ends_no_process_with_the_package_ws(tmp_path: Path, form: str) -> None:
    program = tmp_path / "program.mjs"
    kept = "super.onerror = listener;" if form == "EventTarget" else ""  # a socket without that property
    program.write_text(f"""
        import {{ createRequire }} from "node:module";
        const {{ WebSocket }} = createRequire({json.dumps(str(node_modules()))} + "/")("ws");
        globalThis.WebSocket = class extends WebSocket {{
          set onerror(listener) {{ {kept} }}
        }};
        const {{ Client }} = await import({json.dumps(CLIENT.as_uri())});
        const phases = [];
        const client = new Client({{ url: "ws://127.0.0.1:1/ws", onLink: ({{ phase }}) => {{
          phases.push(phase);
          if (phases.length !== 6) return;
          client.close();
          console.log(phases.includes("waiting"));
        }} }});
        client.open();
        client.publish("a", 1);
    """)
    result = subprocess.run([node(), str(program)], capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout) == (0, "true\n"), result.stderr
