"""What is installed: the client and its commands always, the server with an extra; and the line that installs it."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from twincast import __version__
from twincast.errors import ExtraMissing
from twincast.later import later
from twincast.machine import quoted

if TYPE_CHECKING:
    from importlib import metadata
    from urllib import request
else:
    metadata, request = later("importlib.metadata"), later("urllib.request")

_EXTRA_OF = {"nats": "cluster"}
"""Which extra brings a package that no other one does."""
WHEEL = f"twincast-{__version__}-py3-none-any.whl"


def has_server() -> bool:
    """Whether the server's packages are installed, judged by the one that reads its settings."""
    return find_spec("pydantic_settings") is not None


@contextmanager
def needed(what: str, extra: str = "server") -> Iterator[None]:
    """Let the block import what comes with an extra.

    Args:
        what: what needs it, for the error.
        extra: what brings the packages, but those that come with another one.

    Raises:
        ExtraMissing: a package is not installed; the message has the line that installs it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if not is_foreign(error):
            raise
        raise ExtraMissing(
            f"{what} takes packages that are not installed, {error.name} among them. This line brings them:\n"
            f"  {install_line(_EXTRA_OF.get((error.name or '').partition('.')[0], extra))}"
        ) from None


def is_foreign(error: ModuleNotFoundError) -> bool:
    """Whether the missing module is another project's."""
    name = (error.name or "twincast").partition(".")[0]
    return name != "twincast" and name not in sys.stdlib_module_names


def install_line(extra: str) -> str:
    """Return the line that installs an extra from where this twincast came: no index need have it."""
    source, is_editable = _origin()
    options = ["--editable"] if is_editable else []
    installer = [sys.executable, "-m", "pip", "install"]
    if find_spec("pip") is None:
        installer = ["uv", "pip", "install", "--python", sys.executable]
    return " ".join([*map(quoted, [*installer, *options]), f'"{source}[{extra}]"'])


def _origin() -> tuple[str, bool]:
    """Return where pip took this twincast from (PEP 610), and whether it is used there; else the wheel's bare name."""
    try:
        told = json.loads(metadata.distribution("twincast").read_text("direct_url.json") or "{}")
    except (metadata.PackageNotFoundError, ValueError):
        told = {}
    address = urlsplit(told.get("url", ""))
    path = request.url2pathname(address.path)
    if address.scheme == "file" and Path(path).exists():
        return path, bool(told.get("dir_info", {}).get("editable"))
    return WHEEL, False
