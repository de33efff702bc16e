"""Build the compiled module, twincast/wire/compiled.pyx, into the wheel: only where `TWINCAST_COMPILE=1` asks for it.

Without that the wheel is pure, needs neither Cython nor a compiler, and runs everywhere.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

VARIABLE = "TWINCAST_COMPILE"
MODULE, SOURCE = "twincast.wire.compiled", Path("twincast/wire/compiled.pyx")


class CompiledModule(BuildHookInterface[Any]):
    """The hook: for an editable installation the module is built beside its source, else into the wheel alone."""

    def dependencies(self) -> list[str]:
        """Return what a build needs besides hatchling; the compiler is the system's."""
        return ["cython>=3.1,<4", "setuptools>=77"] if _is_wanted() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and make the wheel one for this Python and system. Raises what the compiler does."""
        if not _is_wanted():
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        self._folder = tempfile.TemporaryDirectory()
        root = Path(self.root)
        built = _compiled(root, Path(self._folder.name))
        beside_source = SOURCE.with_name(built.name)
        if version == "editable":
            # A running server has the old file mapped; it keeps that, for this is another file of the same name
            staged = root / beside_source.with_suffix(".new")
            staged.write_bytes(built.read_bytes())
            staged.replace(root / beside_source)
        else:
            build_data["force_include"][str(built)] = str(beside_source)

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what is in the wheel now."""
        if _is_wanted():
            self._folder.cleanup()


def _is_wanted() -> bool:
    return os.environ.get(VARIABLE) == "1"


def _compiled(root: Path, folder: Path) -> Path:
    """Compile the module in a folder; no optimization of one machine, for a wheel may go to another."""
    from Cython.Build import cythonize  # noqa: PLC0415  # here only where it is asked for
    from setuptools import Distribution, Extension  # noqa: PLC0415

    source = folder / SOURCE.name
    source.write_bytes((root / SOURCE).read_bytes())
    extensions = cythonize([Extension(MODULE, [str(source)])], build_dir=str(folder), quiet=True)
    build = Distribution({"ext_modules": extensions}).get_command_obj("build_ext")
    build.build_lib = build.build_temp = str(folder)
    build.ensure_finalized()
    build.run()
    (built,) = map(Path, build.get_outputs())
    return built
