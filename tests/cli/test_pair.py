"""`twincast pair` and `twincast join`, as a person and a device run them."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import segno

from tests import warm
from tests.credentials import add_key, bearer, certificate, fingerprint_of
from tests.running import ROOT
from twincast.journal.place import Place, note_place
from twincast.testing import Server

MODULES = {" ": (1, 1), "▀": (0, 1), "▄": (1, 0), "█": (0, 0)}


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TWINCAST_")}
    return warm.run(
        [sys.executable, "-m", "twincast", *arguments],
        cwd=ROOT,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def qr_in(text: str) -> list[list[int]]:
    """Return the modules of the QR code in what was printed, 1 for dark, without the white around it."""
    lines = [line for line in text.splitlines() if line and set(line) <= set(MODULES) and "█" in line]
    rows = [[MODULES[char][half] for char in line] for line in lines for half in (0, 1)]
    while not any(rows[-1]) or all(rows[-1]):
        rows.pop()
    dark = [number for number, row in enumerate(rows) if any(row)]
    left = min(row.index(1) for row in rows if 1 in row)
    right = max(len(row) - row[::-1].index(1) for row in rows if 1 in row)
    return [row[left:right] for row in rows[dark[0] : dark[-1] + 1]]


def qr_of(text: str) -> list[list[int]]:
    return [list(map(int, row)) for row in segno.make_qr(text, error="l", boost_error=False).matrix]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "journal.db"
    add_key(path, "owner", admin=["*"])
    return path


def test_a_code_makes_a_device_one_with_a_key_of_its_own(path: Path, tmp_path: Path) -> None:
    with Server(f"sqlite:{path}") as server:
        made = run(
            "pair",
            "lab/fan",
            "--may",
            "publish",
            "--devices",
            "lab/*",
            "--journal",
            f"sqlite:{path}",
            "--url",
            server.url,
        )
        assert made.returncode == 0, made.stderr
        code = made.stdout.strip()
        assert len(code) == 9 and made.stdout.count("\n") == 1
        assert f"twincast join {server.url} {code}" in made.stderr
        assert "lab/fan" in made.stderr and "publish lab/*" in made.stderr
        assert "this machine alone" in made.stderr  # nobody else reaches 127.0.0.1
        joined = run("join", server.url, code)
        assert joined.returncode == 0, joined.stderr
        token = joined.stdout.strip()
        body = {"device_id": "lab/fan", "value": 1}
        httpx.post(f"{server.url}/api/data", json=body, headers=bearer(token)).raise_for_status()
        again = run("join", server.url, code)
        assert (again.returncode, again.stdout) == (1, "")
        assert "used already" in again.stderr
    listed = run("keys", "list", "--json", "--journal", f"sqlite:{path}").stdout
    assert {json.loads(line)["name"] for line in listed.splitlines()} == {"lab/fan", "owner"}
    assert code not in listed and token not in listed
    assert not [each for each in tmp_path.iterdir() if code.replace("-", "").encode() in each.read_bytes()]
    trail = run("audit", "--json", "--journal", f"sqlite:{path}").stdout
    assert [json.loads(line)["action"] for line in trail.splitlines()] == ["keys add", "pair", "paired"]


def test_a_key_is_saved_for_its_owner_alone_and_no_file_is_written_over(path: Path, tmp_path: Path) -> None:
    saved = tmp_path / "device.key"
    with Server(f"sqlite:{path}") as server:
        code = run("pair", "a", "--may", "read", "--journal", f"sqlite:{path}").stdout.strip()
        saved.write_text("mine")
        refused = run("join", server.url, code, "--save", str(saved))
        assert (refused.returncode, saved.read_text()) == (2, "mine")
        assert "File exists" in refused.stderr and "was not used" in refused.stderr
        saved.unlink()
        wrong = run("join", server.url, "0000-0000", "--save", str(saved))
        assert (wrong.returncode, saved.exists()) == (1, False)
        joined = run("join", server.url, code, "--save", str(saved))
        assert (joined.returncode, joined.stdout) == (0, "")
        assert stat.S_IMODE(saved.stat().st_mode) == 0o600
        token = saved.read_text().strip()
        assert token not in joined.stderr
        assert httpx.get(f"{server.url}/api/data", headers=bearer(token)).status_code == 200


def test_a_phone_finds_the_page_with_the_code_in_the_qr_code(path: Path) -> None:
    with Server(f"sqlite:{path}"):
        note_place(str(path), Place("https://192.168.1.10:8443", f"sha256:{'ab' * 32}"))  # as `serve` does
        made = run("pair", "phone", "--may", "read", "--journal", f"sqlite:{path}")
        code = made.stdout.strip()
        page = f"https://192.168.1.10:8443/dashboard#pair={code}"
        assert page in made.stderr
        assert qr_in(made.stderr) == qr_of(page)
        assert f"--fingerprint sha256:{'ab' * 32}" in made.stderr
        assert "curl -k --pinnedpubkey sha256//q6ur" in made.stderr
        made = run(
            "pair", "phone", "--may", "read", "--journal", f"sqlite:{path}", "--url", "https://twin.example.org/x/"
        )
        page = f"https://twin.example.org/x/dashboard#pair={made.stdout.strip()}"
        assert qr_in(made.stderr) == qr_of(page)


def test_an_output_without_the_letters_for_a_qr_code_has_none(path: Path) -> None:
    with Server(f"sqlite:{path}"):
        note_place(str(path), Place("http://192.168.1.10:8000"))
        made = run("pair", "phone", "--may", "read", "--journal", f"sqlite:{path}", PYTHONIOENCODING="ascii")
        assert made.returncode == 0, made.stderr
        assert "dashboard#pair=" in made.stderr and "\\u2588" not in made.stderr


def test_a_code_waits_for_a_server_that_does_not_run(path: Path) -> None:
    made = run("pair", "a", "--may", "read", "--journal", f"sqlite:{path}")
    assert made.returncode == 0
    assert "No server runs on" in made.stderr
    with Server(f"sqlite:{path}") as server:
        assert run("join", server.url, made.stdout.strip()).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["pair", "a name", "--may", "read"], 1, "1 to 64 letters"),
        (["pair", "a", "--may", "fly"], 1, "the rights are"),
        (["pair", "a", "--may", "read", "--expires", "soon"], 1, "a duration is"),
        (["pair", "a", "--may", "read", "--rate", "0"], 1, "a rate must be"),
        (["pair", "a", "--may", "read", "--url", "ftp://x"], 2, "expected a server's address"),
        (["pair", "a", "--may", "read", "--journal", "memory:"], 1, "keys live in a journal on disk"),
        (["pair", "owner", "--may", "read"], 1, "already"),
        (["join", "ftp://x", "7KQ4-9XTM"], 2, "expected a server's address"),
        (["join", "http://127.0.0.1:1", "7KQ4-9XTM"], 1, "nobody answers"),
        (["join", "http://127.0.0.1:1", "7KQ4-9XTM", "--save", "/nowhere/key"], 2, "No such file"),
        (["join", "http://127.0.0.1:1", "7KQ4-9XTM", "--fingerprint", "sha256:0"], 1, "64 hexadecimal digits"),
        (["join", "http://127.0.0.1:1", "7KQ4-9XTM", "--fingerprint", f"sha256:{'0' * 64}"], 1, "https://"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(path: Path, arguments: list[str], status: int, words: str) -> None:
    ran = run(*arguments, TWINCAST_JOURNAL=f"sqlite:{path}")
    assert (ran.returncode, words in ran.stderr, "Traceback" in ran.stderr) == (status, True, False), ran.stderr


def test_a_device_pins_the_server_that_it_joins(path: Path, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    with Server(f"sqlite:{path}", tls_cert=str(cert), tls_key=str(key)) as server:
        code = run("pair", "a", "--may", "publish", "--journal", f"sqlite:{path}").stdout.strip()
        refused = run("join", server.url, code, "--fingerprint", f"sha256:{'0' * 64}")
        assert (refused.returncode, "not the server" in refused.stderr) == (1, True)
        joined = run("join", server.url, code, TWINCAST_FINGERPRINT=fingerprint_of(cert))  # the code was not spent
        assert joined.returncode == 0, joined.stderr
        where: Any = {"TWINCAST_TOKEN": joined.stdout.strip(), "TWINCAST_URL": server.url}
        pin = ("--fingerprint", fingerprint_of(cert))
        assert run("send", "lamp", "1", *pin, **where).returncode == 0
        assert run("status", *pin, **where).returncode == 0
        assert run("host", "--count", "1", *pin, **where).returncode == 0
        assert "not trusted" in run("send", "lamp", "1", **where).stderr
        assert "not the server" in run("host", "--count", "1", "--fingerprint", f"sha256:{'0' * 64}", **where).stderr
