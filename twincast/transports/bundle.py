"""Several ES modules as one file, for programs that keep a copy of `client.js` and nothing else.

Each module becomes a function that is called once and returns what it exports; the first one stays as it is. What is
understood is what this package's own modules write: imports by name, and exports in front of what they name.
"""

import re
from pathlib import Path

_IMPORT = re.compile(r'^(import|export) \{ ([^}]+) \} from "(\./[\w./-]+\.js)";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async function|function|class|const) (\w+))", re.MULTILINE)
_NO_EXPORTS = re.compile(r"^export \{\};$", re.MULTILINE)


def bundled(entry: Path) -> str:
    """Return a module and all that it imports, directly or not, as the text of one module.

    Raises:
        ValueError: a module imports or exports in a way that is not understood.
    """
    parts: dict[Path, str] = {}
    text = _inlined(entry, parts, {})
    return "".join((*parts.values(), text))


def _inlined(module: Path, parts: dict[Path, str], names: dict[Path, str]) -> str:
    """Return a module's text with its imports taken from others, which are added to the parts before it."""

    def taken(found: re.Match[str]) -> str:
        kind, wanted, place = found.groups()
        other = (module.parent / place).resolve()
        if other not in names:
            names[other] = f"$module{len(names)}"
            parts[other] = _called(_inlined(other, parts, names), names[other])
        taking = f"const {{ {wanted.replace(' as ', ': ')} }} = {names[other]};"
        return taking if kind == "import" else f"{taking}\nexport {{ {wanted} }};"

    text = _IMPORT.sub(taken, module.read_text(encoding="utf-8"))
    if re.search(r"^import\b", text, re.MULTILINE):
        raise ValueError(f"{module.name} imports in a way that is not understood")
    return text


def _called(text: str, name: str) -> str:
    exported = ", ".join(_EXPORT.findall(text))
    text = _NO_EXPORTS.sub("", _EXPORT.sub("", text))
    if re.search(r"^export\b", text, re.MULTILINE):
        raise ValueError("a module exports in a way that is not understood")
    return f"const {name} = (() => {{\n{text}\nreturn {{ {exported} }};\n}})();\n"
