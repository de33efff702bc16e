"""The pages: what there is, the documents of the interfaces, the dashboard; all from the installed package."""

import gzip
import re
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, Response
from fastapi.staticfiles import StaticFiles

from twincast.transports import compression
from twincast.transports.asgi import SAFE_HEADERS
from twincast.transports.bundle import Bundled, bundled, styled
from twincast.transports.documents import asyncapi
from twincast.wire.messages import encode

PACKAGE = Path(__file__).resolve().parents[1]
WEB = PACKAGE / "web"
GUIDES = next((folder for folder in (PACKAGE / "guides", PACKAGE.parent / "docs") if folder.is_dir()), None)
"""The guides: a wheel has them in the package, a checkout beside it."""

# What the pages load and show is the same for everyone: the program itself, none of its data.
OPEN_PATHS = frozenset({"", "/", "/docs", "/redoc", "/asyncapi", "/dashboard", "/openapi.json", "/asyncapi.json"})
OPEN_FOLDERS = ("/pages/", "/dashboard/", "/guides/")

PAGE_POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self' data:; connect-src 'self'"
)
# Swagger UI and Redoc set styles in the markup that they make, and Redoc searches in a worker.
DOCS_POLICY = PAGE_POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'") + "; worker-src blob:"


_ASSET_HEADERS = {
    "cache-control": "no-cache",
    "x-content-type-options": "nosniff",
    "access-control-allow-origin": "*",  # a page of a user's own imports the client module
}


def is_open(path: str) -> bool:
    """Whether a path is a page, or something that the pages load: these need no login."""
    return path in OPEN_PATHS or path.startswith(OPEN_FOLDERS)


def add_pages(app: FastAPI, version: str) -> None:
    """Add the pages and their files to an application's routes."""

    async def openapi_document(request: Request) -> Response:
        document, prefix = app.openapi(), _prefix(request)
        return _document({**document, "servers": [{"url": prefix}]} if prefix else document)

    async def asyncapi_document(request: Request) -> Response:
        return _document(asyncapi.document(version, request.url.netloc, _prefix(request)))

    pages = WEB / "pages"
    for path, file, policy in (
        ("/", pages / "home.html", PAGE_POLICY),
        ("/docs", pages / "docs.html", DOCS_POLICY),
        ("/redoc", pages / "redoc.html", DOCS_POLICY),
        ("/asyncapi", pages / "asyncapi.html", PAGE_POLICY),
        ("/dashboard", WEB / "dashboard" / "index.html", PAGE_POLICY),
    ):
        app.add_api_route(path, _Page(file, policy), methods=["GET", "HEAD"], include_in_schema=False)
    app.add_route("/openapi.json", openapi_document, include_in_schema=False)
    app.add_route("/asyncapi.json", asyncapi_document, include_in_schema=False)
    for path, make, type_ in (
        ("client.js", lambda: bundled(WEB / "client" / "client.js"), "text/javascript"),
        ("app.js", _dashboard, "text/javascript"),
        ("styles/dashboard.css", lambda: styled(WEB / "dashboard" / "styles" / "dashboard.css"), "text/css"),
    ):
        one_file = OneFile(make, type_)
        app.add_api_route(f"/dashboard/{path}", one_file, methods=["GET", "HEAD"], include_in_schema=False)
    app.mount("/pages", _Assets(directory=pages))
    app.mount("/dashboard/client", _Assets(directory=WEB / "client"))
    app.mount("/dashboard", _Assets(directory=WEB / "dashboard"))
    if GUIDES is not None:
        app.mount("/guides", _Guides(directory=GUIDES))


def _prefix(request: Request) -> str:
    """Return the prefix of this application's paths, as addresses have it; what is encoded already stays so."""
    return quote(request.scope.get("root_path", "").rstrip("/"), safe="/%:@!$&'()*+,;=~")


def _document(content: dict[str, Any]) -> Response:
    response = Response(encode(content), media_type="application/json")
    response.raw_headers.extend(SAFE_HEADERS)
    return response


def _with_own_scripts(policy: str, file: Path) -> str:
    """Return a policy that allows the scripts inside a page: exactly these, by their hashes."""
    scripts = re.findall(r"<script>(.*?)</script>", file.read_text(encoding="utf-8"), re.DOTALL)
    hashes = (b64encode(sha256(script.encode()).digest()).decode() for script in scripts)
    return policy.replace("script-src", " ".join(["script-src", *(f"'sha256-{each}'" for each in hashes)]))


class _Page:
    """One HTML file, under its content security policy."""

    def __init__(self, file: Path, policy: str) -> None:
        self._file = file
        self._headers = {
            "content-security-policy": _with_own_scripts(policy, file),
            "x-content-type-options": "nosniff",
            "referrer-policy": "same-origin",
            "cache-control": "no-cache",
        }

    async def __call__(self) -> Response:
        return FileResponse(self._file, headers=self._headers)


class _Assets(StaticFiles):
    """The files that the pages load; revalidated at each load, so that an update shows at once."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update(_ASSET_HEADERS)
        return response


def _dashboard() -> Bundled:
    return bundled(WEB / "dashboard" / "app.js", {WEB / "dashboard" / "client.js": WEB / "client" / "client.js"})


class _Served(NamedTuple):
    """What is served, and of when what it was made of is."""

    files: tuple[Path, ...]
    as_of: tuple[int, ...]
    text: bytes
    compressed: bytes
    tag: str


class OneFile:
    """A file and all that it imports, as one: a program can keep a copy of it, and a page is there sooner."""

    def __init__(self, make: Callable[[], Bundled], type_: str) -> None:
        """Serve what `make` makes, as a media type."""
        self._make = make
        self._type = type_
        self._served = _Served((), (0,), b"", b"", "")

    def _now(self) -> _Served:
        """Return it as it is now: made anew if one of its files was changed."""
        if self._served.as_of != _times_of(self._served.files):
            made = self._make()
            text = made.text.encode()
            tag = f'W/"{sha256(text).hexdigest()[:32]}"'
            self._served = _Served(made.files, _times_of(made.files), text, gzip.compress(text, mtime=0), tag)
        return self._served

    async def __call__(self, request: Request) -> Response:
        """Return it, compressed if the browser takes that, or that the browser has it already."""
        _, _, text, compressed, tag = self._now()
        headers = {**_ASSET_HEADERS, "etag": tag, "vary": "accept-encoding"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        if compression.is_asked_for(request.headers.get("accept-encoding", "")):
            return Response(compressed, media_type=self._type, headers={**headers, "content-encoding": "gzip"})
        return Response(text, media_type=self._type, headers=headers)


def _times_of(files: tuple[Path, ...]) -> tuple[int, ...]:
    try:
        return tuple(each.stat().st_mtime_ns for each in files)
    except FileNotFoundError:  # it is imported no longer
        return ()


class _Guides(_Assets):
    """The guides as plain text, and no other file of their folder."""

    def lookup_path(self, path: str) -> tuple[str, Any]:
        return super().lookup_path(path) if path.endswith(".md") else ("", None)

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["content-type"] = "text/plain; charset=utf-8"
        return response
