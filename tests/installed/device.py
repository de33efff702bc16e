"""What must work where the wheel alone is installed: the client, and its commands. Prints what brings the server.

Run by the Python of that environment, with the address of a server: `python device.py URL`.
"""

import asyncio
import json
import subprocess
import sys
import threading
import time

from twincast.client import Rest, connect
from twincast.client.sync import connect as connect_sync

TIMEOUT_S = 60
OF_A_SERVER = (["serve"], ["serve", "--port", "0"], ["serve", "--help"], ["keys", "list"], ["journal", "info"])


def command(*words: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command of twincast's, which never ends in a traceback."""
    ran = subprocess.run(
        [sys.executable, "-m", "twincast", *words],
        input=text,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert "Traceback" not in ran.stderr, ran.stderr
    return ran


def succeeds(*words: str, text: str | None = None) -> str:
    """Run a command that must succeed; return what it printed."""
    ran = command(*words, text=text)
    assert ran.returncode == 0, f"{words} ended with {ran.returncode}:\n{ran.stdout}{ran.stderr}"
    return ran.stdout


async def publish_and_watch(url: str) -> None:
    """See that a reading reaches who watches."""
    async with asyncio.timeout(TIMEOUT_S), connect(url) as client:
        await client.publish("lab/lamp", {"on": True})
        async for event in client.watch("lab/lamp", initial=True):
            assert event.value == {"on": True}
            return


def watch_a_line(url: str) -> None:
    """See that `watch` prints a event into a pipe."""
    words = [sys.executable, "-m", "twincast", "watch", "--url", url]
    lines: list[str] = []
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as watching, connect_sync(url) as client:
        stdout = watching.stdout
        assert stdout is not None
        reader = threading.Thread(target=lambda: lines.append(stdout.readline()))
        reader.start()
        deadline_s = time.monotonic() + TIMEOUT_S
        while reader.is_alive() and time.monotonic() < deadline_s:  # it watches from some moment on
            client.publish("lab/tick", len(lines))
            reader.join(0.2)
        watching.terminate()
    assert json.loads(lines[0])["device_id"] == "lab/tick"


def main() -> None:
    """Go through all of it; whatever does not work ends this with an error."""
    url = sys.argv[1]
    asyncio.run(publish_and_watch(url))
    with Rest(url) as rest:
        assert rest.data()["data"]["lab/lamp"]["value"] == {"on": True}
    listed = succeeds("--help")
    assert all(name in listed for name in ("serve", "send", "keys"))
    at = ("--url", url)
    succeeds("send", "lab/lamp", "21.5", *at)
    succeeds("send", "lab/lamp", "-", *at, text="1\n2\n")
    assert succeeds("get", "lab/lamp", *at).strip() == "2"
    assert json.loads(succeeds("status", "--json", *at))["ok"]
    succeeds("control", "lab/lamp", "on", *at)
    succeeds("host", "--count", "1", "--interval", "0.1", *at)
    succeeds("simulate", "--seconds", "0.5", *at)
    watch_a_line(url)
    succeeds("delete", "lab/lamp", *at)
    assert [json.loads(line)["action"] for line in succeeds("audit", "--json", *at).splitlines()][-1] == "delete"
    lines = set()
    for words in OF_A_SERVER:
        ran = command(*words)
        assert ran.returncode == 1, ran
        lines.add(ran.stderr.splitlines()[-1].strip())
    (line,) = lines
    assert line.endswith('.whl[server]"'), line
    print(line)


if __name__ == "__main__":
    main()
