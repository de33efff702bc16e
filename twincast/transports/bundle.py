"""Several ES modules as one file, or several style sheets.

A program keeps a copy of `client.js` and nothing else; a page would wait for one request after the other.

Each module becomes a function that is called once and returns what it exports; the first one stays as it is. What is
understood is what this package's own modules and those beside them write: imports by name or of a default, and exports
in front of what they name or in braces at the end.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

_IMPORT = re.compile(r'^(import|export) \{ ([^}]+) \} from "(\./[\w./-]+\.js)";$', re.MULTILINE)
_DEFAULT_IMPORT = re.compile(r'^import (\w+)(?= from "\./[\w./-]+\.js";$)', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async function|function|class|const) (\w+))", re.MULTILINE)
_EXPORTS = re.compile(r"^export \{([^}]*)\};$", re.MULTILINE)
_COMMENT = re.compile(r"^\s*/\*.*?\*/", re.MULTILINE | re.DOTALL)
_NAMES = re.compile(r"\w+(?: as \w+)?")
_STYLES = re.compile(r'^@import "(\.\.?/[\w./-]+\.css)";$', re.MULTILINE)
_NOWHERE: Mapping[Path, Path] = {}


class Bundled(NamedTuple):
    """Several files as one."""

    text: str
    files: tuple[Path, ...]
    """What it was made of."""


class _Module(NamedTuple):
    """A module that is in the file: the constant that has what it exports, and the names of that."""

    name: str
    exported: frozenset[str]


def bundled(entry: Path, elsewhere: Mapping[Path, Path] = _NOWHERE) -> Bundled:
    """Return a module and all that it imports, directly or not, as the text of one module.

    Args:
        entry: the file of the module that imports the others.
        elsewhere: the files of modules that are served in other places than they are in.

    Raises:
        ValueError: a module imports or exports in a way that is not understood.
    """
    return _Bundle(elsewhere).of(entry)


def styled(entry: Path) -> Bundled:
    """Return a style sheet with those that it imports in their places. What these name lies where it did, beside it.

    Raises:
        ValueError: one imports in a way that is not understood, or names a file and lies in another folder.
    """
    entry = entry.resolve()
    files = [entry]

    def taken(found: re.Match[str]) -> str:
        file = (entry.parent / found[1]).resolve()
        files.append(file)
        text = file.read_text(encoding="utf-8")
        if file.parent != entry.parent and "url(" in text:
            raise ValueError(f"{file.name} names files beside it, which are not understood in {entry.parent.name}")
        return text

    text = _STYLES.sub(taken, entry.read_text(encoding="utf-8"))
    if "@import" in text:
        raise ValueError(f"{entry.name} imports in a way that is not understood")
    return Bundled(text, tuple(files))


class _Bundle:
    """The modules of one file, by their own files: each after those that it imports."""

    def __init__(self, elsewhere: Mapping[Path, Path]) -> None:
        self._elsewhere = elsewhere
        self._modules: dict[Path, _Module | None] = {}
        self._parts: list[str] = []

    def of(self, entry: Path) -> Bundled:
        text = self._inlined(entry)
        files = (self._elsewhere.get(file, file) for file in self._modules)
        return Bundled("".join((*self._parts, text)), (entry, *files))

    def _inlined(self, file: Path) -> str:
        """Return a module's text with its imports taken from others, which are added to the parts before it."""

        def taken(found: re.Match[str]) -> str:
            kind, wanted, place = found.groups()
            other = self._module((file.parent / place).resolve())
            if other is None or not {each.split(" as ")[0] for each in wanted.split(", ")} <= other.exported:
                raise ValueError(f"{file.name} imports of {place} what is not there, or not yet")
            taking = f"const {{ {wanted.replace(' as ', ': ')} }} = {other.name};"
            return taking if kind == "import" else f"{taking}\nexport {{ {wanted} }};"

        text = _DEFAULT_IMPORT.sub(r"import { default as \1 }", file.read_text(encoding="utf-8"))
        text = _IMPORT.sub(taken, text)
        if re.search(r"^import\b", text, re.MULTILINE):
            raise ValueError(f"{file.name} imports in a way that is not understood")
        return text

    def _module(self, file: Path) -> _Module | None:
        """Return a module that has been added; None if it is only being added: it imports itself by way of others."""
        if file not in self._modules:
            self._modules[file] = None
            text = self._inlined(self._elsewhere.get(file, file))
            module, part = _called(text, f"$module{len(self._parts)}")
            self._modules[file] = module
            self._parts.append(part)
        return self._modules[file]


def _called(text: str, name: str) -> tuple[_Module, str]:
    """Return what a module of this text is known as, and the text of a constant that has all that it exports."""
    code = _COMMENT.sub("", text)
    listed = [each.split(" as ") for names in _EXPORTS.findall(code) for each in _NAMES.findall(names)]
    exported = {own: own for own in _EXPORT.findall(code)} | {each[-1]: each[0] for each in listed}
    text = _EXPORTS.sub("", _EXPORT.sub("", text))
    if re.search(r"^export\b", text, re.MULTILINE):
        raise ValueError("a module exports in a way that is not understood")
    members = ", ".join(f"{other}: {own}" for other, own in exported.items())
    return _Module(name, frozenset(exported)), f"const {name} = (() => {{\n{text}\nreturn {{ {members} }};\n}})();\n"
