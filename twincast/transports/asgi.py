"""What the ASGI applications share: their types, the headers of every answer, and where in this one a path leads."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeVar
from urllib.parse import unquote, unquote_to_bytes

from twincast.access.request import RequestFacts
from twincast.errors import NotFound, ValidationFailed

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


OF_HEAD = "twincast.head"
"""In the scope under `twincast serve`: what follows from the head of a request alone. It is the same dictionary for all
requests of a connection that have the same head, so that is found out once."""
Found = TypeVar("Found")

SAFE_HEADERS = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))
"""Of every answer that is not a page: no browser guesses its type, and no cache keeps it."""


def of_head(scope: Scope, name: str, find: Callable[[Scope], Found]) -> Found:
    """Return what a function finds in the head of a request, which was perhaps found before; see OF_HEAD."""
    found = scope.get(OF_HEAD)
    if found is None:
        return find(scope)
    if name not in found:
        found[name] = find(scope)
    known: Found = found[name]
    return known


def facts_of(scope: Scope) -> RequestFacts:
    """Return the facts of a request.

    Raises:
        BadMessage: see RequestFacts.of.
    """
    client = scope.get("client")
    return RequestFacts.of(client[0] if client else None, scope["headers"])


def placed(scope: Scope, own_path: str = "") -> tuple[Scope, str]:
    """Return a scope whose path begins with its root_path, and what follows that: the path in this application.

    A proxy may have removed the root_path, and servers differ in whether they add it again. Below a mount the
    root_path may be of the application around this one, and the path may begin with the mount's own part alone.

    Args:
        scope: of a request.
        own_path: the prefix that a proxy has before all paths, by the settings; the server does not know of it.
    """
    root_path, path = scope.get("root_path", ""), scope["path"]
    if not root_path and not own_path:
        return scope, path
    if root_path.endswith("/"):
        path = path.replace(f"{root_path}/", root_path, 1) if path.startswith(f"{root_path}/") else path
        root_path = root_path.rstrip("/")
    mount = root_path.removeprefix(scope.get("app_root_path", ""))
    below = without_prefix(without_prefix(path, root_path, mount), own_path)
    root_path += own_path
    return {**scope, "root_path": root_path, "path": root_path + below}, below


def without_prefix(path: str, *prefixes: str) -> str:
    """Return a path below the first of some paths that it is below, or that it is; else as it is."""
    prefix = next((each for each in prefixes if path == each or path.startswith(f"{each}/")), "")
    return path[len(prefix) :]


def segment_below(scope: Scope, folder: str, ending: str = "") -> str:
    """Return the one segment of a request's path below a folder, decoded: in it `%2F` is a slash of the name.

    Args:
        scope: of the request.
        folder: what stands before the segment, with a slash at its end.
        ending: what stands behind it, with a slash before it.

    The path that ASGI calls `path` is decoded as a whole, and no longer tells such a slash from one between segments.

    Raises:
        NotFound: there are more segments than one.
        ValidationFailed: it is not UTF-8, percent-encoded.
    """
    prefix = scope.get("root_path", "")
    raw_path = scope.get("raw_path")
    if raw_path is None:  # ASGI does not promise it; what is left is one segment then, whatever is in it
        return str(scope["path"]).removeprefix(prefix).removeprefix(folder).removesuffix(ending)
    head, slash, segment = raw_path.removesuffix(ending.encode()).rpartition(b"/")
    before = unquote((head + slash).decode("latin-1"))
    if not before.endswith(folder) or not _is_prefix(before.removesuffix(folder), scope):
        raise NotFound(f"there is nothing here: below {folder} stands one name, and a `/` in it is written %2F")
    try:
        return unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        raise ValidationFailed("a name in a path is UTF-8, percent-encoded; this one is not") from None


def _is_prefix(text: str, scope: Scope) -> bool:
    """Whether a text stands before this application's paths, where they are as they were sent: all of it, or a part."""
    prefix = unquote(scope.get("root_path", ""))  # a user may have given it to the server as it is in addresses
    text = text.rstrip("/")
    return prefix.endswith(text) and (not text or text[0] == "/")


def header(scope: Scope, name: bytes) -> str | None:
    """Return a request's header; None if it has none."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return None


def list_header(scope: Scope, name: bytes) -> str:
    """Return a header that is a list, from all lines that it stands in (RFC 9110, 5.3); empty if it stands in none."""
    return ",".join(value.decode("latin-1") for key, value in scope["headers"] if key == name)
