"""Programs, and rights, that some tests need: who has not is told why one is skipped; where all must be, it fails."""

import os
import shutil
from typing import NoReturn

import pytest

ALL_ENV = "TWINCAST_TEST_ALL"
"""Set where nothing may be skipped, as in CI, where a skipped test would look like one that passed."""
MUST_HAVE_ALL = bool(os.environ.get(ALL_ENV))


def lacking(why: str) -> NoReturn:
    """Skip the test, with the reason; fail it where nothing may be skipped."""
    if MUST_HAVE_ALL:
        pytest.fail(f"{why}; {ALL_ENV} lets no test be skipped")
    pytest.skip(why)


def program(*names: str, env: str = "", folders: tuple[str, ...] = ()) -> str:
    """Return the path of a program, by the first of its names that is found.

    Args:
        names: what it may be called.
        env: a variable that may hold its path.
        folders: where it may lie beside the path.
    """
    path = os.pathsep.join([os.environ.get("PATH", ""), *folders])
    found = os.environ.get(env) or next(filter(None, (shutil.which(name, path=path) for name in names)), None)
    if found is None:
        by_path = f", or set {env} to its path" if env else ""
        lacking(f"there is no {names[0]} here: `scripts/test` installs it on a Debian system{by_path}")
    return found


def needs_root(what: str) -> pytest.MarkDecorator:
    """Mark a test that takes root."""
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    return pytest.mark.skipif(not (is_root or MUST_HAVE_ALL), reason=f"takes root, {what}")
