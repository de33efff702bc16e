"""What must work wherever a server is installed: it, both clients of it, the command line, the pages.

Run by `scripts/lowest` and `scripts/smoke`, in environments without anything that only tests need.
"""

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import httpx

from twincast import __version__
from twincast.client import Rest, connect
from twincast.testing import Server

TIMEOUT_S = 120
COMMANDS = ("serve", "watch", "send", "keys", "journal", "audit")
PAGES = ("/", "/dashboard", "/guides/client.md", "/docs", "/redoc", "/asyncapi", "/openapi.json", "/asyncapi.json")


def run(folder: Path, *words: str) -> str:
    """Run a command that must succeed; return what it printed."""
    command = [sys.executable, "-m", "twincast", *words]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if ran.returncode or "Traceback" in ran.stderr:
        raise SystemExit(f"twincast {' '.join(words)} ended with {ran.returncode}:\n{ran.stdout}{ran.stderr}")
    return ran.stdout


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[str]:
    """Run a server in a folder; gives its address."""
    command = [sys.executable, "-u", "-m", "twincast", "serve", "--port", "0", *options]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            for line in server.stdout:
                if "http://" in line:
                    address = line[line.index("http://") :].split()[0]
                    yield "/".join(address.split("/")[:3])
                    break
            else:
                raise SystemExit("the server did not say where it is")
        finally:
            server.terminate()
            server.communicate(timeout=TIMEOUT_S)


async def publish_and_watch(url: str, token: str | None = None) -> None:
    """See that a reading reaches who watches."""
    async with asyncio.timeout(TIMEOUT_S), connect(url, token=token) as client:
        await client.publish("lab/lamp", {"on": True})
        async for event in client.watch("lab/*", initial=True):
            assert event.value == {"on": True}
            return


def speak_http_to_both_edges() -> None:
    """See that the parts of uvicorn that the server builds on are there, by what they are needed for."""
    offer = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQ"}
    for edge in ("picows", "portable"):
        with Server(edge=edge) as server:
            posted = httpx.post(f"{server.url}/api/data", json={"device_id": "lab/lamp", "value": 1}, headers=offer)
            assert posted.status_code == httpx.codes.OK
            closing = httpx.get(f"{server.url}/api/status", headers={"Connection": "x, close"})
            assert closing.headers["connection"] == "close"


def main() -> None:
    """Go through all of it; whatever does not work ends this with an error."""
    for name in COMMANDS:
        run(Path.cwd(), name, "--help")
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        token = run(folder, "keys", "add", "me", "--may", "publish,read,command,admin").split()
        secret = next(word for word in token if word.startswith("twc_"))
        with serving(folder) as url:
            asyncio.run(publish_and_watch(url, secret))
            with Rest(url, token=secret) as rest:
                assert rest.data()["data"]["lab/lamp"]["value"] == {"on": True}
            for page in PAGES:
                httpx.get(url + page, timeout=TIMEOUT_S).raise_for_status()
            run(folder, "keys", "list")
            run(folder, "journal", "info")
    if find_spec("nats") is not None:
        with tempfile.TemporaryDirectory() as directory, serving(Path(directory), "--workers", "2") as url:
            asyncio.run(publish_and_watch(url))
    speak_http_to_both_edges()
    print(f"twincast {__version__} works as a server on Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
