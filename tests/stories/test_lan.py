"""`serve --lan` on a small network: a second machine and a phone on it, and an address that is everybody's."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from playwright.sync_api import expect, sync_playwright

from tests.browser import DEADLINE_MS, PHONE, chromium
from tests.cli.test_pair import qr_in, qr_of
from tests.namespaces import Machine, connect, machines
from tests.running import DEADLINE_S, ROOT, eventually

PORT = 8_000
HERE, THERE = "10.77.0.1", "10.77.0.2"
PUBLIC, PUBLIC_PEER = "8.8.4.4", "8.8.4.5"
TWINCAST = (sys.executable, "-m", "twincast")
LISTENERS = """
import json, psutil
print(json.dumps([each.laddr.ip for each in psutil.net_connections("tcp") if each.status == "LISTEN"]))
"""
KNOCK = "import socket, sys; print(socket.create_connection((sys.argv[1], int(sys.argv[2])), 5))"


Ran = subprocess.CompletedProcess[str]


class Network:
    """A machine with a server, and another one: by a cable of their own, and by one with public addresses."""

    def __init__(self, server: Machine, other: Machine, folder: Path) -> None:
        self.server, self.other, self.folder = server, other, folder

    def twincast(
        self, *words: str, at: Machine | None = None, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command on the server's machine, or another."""
        return (at or self.server).run(*TWINCAST, *words, cwd=self.folder, env={**plain(), **environment})

    @contextmanager
    def serving(self, *options: str) -> Iterator["Serving"]:
        """Run a server on a terminal, as a person does."""
        master, slave = pty.openpty()
        process = subprocess.Popen(
            self.server.command(*TWINCAST, "serve", "--lan", *options),
            cwd=self.folder,
            env={**plain(), "TERM": "dumb", "NO_COLOR": "1", "COLUMNS": "300"},
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        try:
            yield Serving(process, master)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(DEADLINE_S)
            os.close(master)


class Serving:
    """A server that runs, and what it has printed."""

    def __init__(self, process: "subprocess.Popen[bytes]", terminal: int) -> None:
        self.process = process
        self._terminal = terminal
        self._parts: list[bytes] = []
        threading.Thread(target=self._read, daemon=True).start()
        eventually(lambda: "Ctrl-C stops it" in self.printed or process.poll() is not None, "the server is up")
        assert process.poll() is None, self.printed

    @property
    def printed(self) -> str:
        return b"".join(self._parts).decode().replace("\r\n", "\n")

    def found(self, pattern: str) -> str:
        found = re.search(pattern, self.printed)
        assert found is not None, self.printed
        return found[1]

    @property
    def program(self) -> str:
        """The Python lines that it prints, as a program."""
        line = self.found(r"\n +(async with connect.*)\n")
        return f"import asyncio\nfrom twincast.client import connect\nasync def main():\n {line}\nasyncio.run(main())"

    def _read(self) -> None:
        try:
            while part := os.read(self._terminal, 65_536):
                self._parts.append(part)
        except OSError:  # EIO: the other side has closed
            return


def plain() -> dict[str, str]:
    """Return the environment without settings; the package is found from everywhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TWINCAST_")}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    with machines("server", "other") as (server, other):
        connect("own", server, other, (f"{HERE}/24", f"{THERE}/24"), ("fd77::1/64", "fd77::2/64"))
        connect("open", server, other, (f"{PUBLIC}/24", f"{PUBLIC_PEER}/24"), ("2600::1/64", "2600::2/64"))
        yield Network(server, other, tmp_path)


def pattern_set(network: Network) -> list[str]:
    listed = network.twincast("keys", "list", "--json").stdout
    return [json.loads(line)["name"] for line in listed.splitlines()]


def listened(network: Network) -> set[str]:
    addresses: list[str] = json.loads(network.server.run(sys.executable, "-c", LISTENERS).stdout)
    return {re.sub("^fe80::[0-9a-f:]+", "fe80::", address) for address in addresses}


def test_a_second_machine_pairs_publishes_and_is_revoked(network: Network) -> None:
    with network.serving() as server:
        url = f"http://{HERE}:{PORT}"
        owner = server.found(r"(twc_\S+)")
        assert f"Dashboard  {url}/dashboard" in server.printed
        assert "can read all that is sent, keys too" in server.printed
        # The server is where it says, and nowhere else: not at what everybody reaches.
        assert listened(network) == {HERE, "fd77::1", "fe80::", "127.0.0.1", "::1"}
        for address, is_open in ((HERE, True), ("fd77::1", True), (PUBLIC, False), ("2600::1", False)):
            knocked = network.other.run(sys.executable, "-c", KNOCK, address, str(PORT))
            assert knocked.returncode == (0 if is_open else 1)
            assert ("ConnectionRefusedError" in knocked.stderr) is not is_open
        # Both lines that it prints work from the other machine.
        curl = server.found(r"\n +(curl .*)\n")
        answer = network.other.run("sh", "-c", f"{curl} -sS", env={**plain(), "TWINCAST_TOKEN": owner})
        assert json.loads(answer.stdout)["stored"] is True, answer
        line = server.found(r"\n +(async with connect.*)\n")
        program = (
            f"import asyncio\nfrom twincast.client import connect\nasync def main():\n {line}\nasyncio.run(main())"
        )
        ran = network.other.run(sys.executable, "-c", program, env={**plain(), "TWINCAST_TOKEN": owner})
        assert ran.returncode == 0, ran.stderr
        # Its commands on its own machine go on as they did.
        assert network.twincast("status", TWINCAST_TOKEN=owner).returncode == 0
        # The other machine gets a key of its own, does what that may, and is gone when it is revoked.
        made = network.twincast("pair", "lab/fan", "--may", "publish", "--devices", "lab/*")
        assert f"twincast join {url} {made.stdout.strip()}" in made.stderr
        token = network.twincast("join", url, made.stdout.strip(), at=network.other).stdout.strip()
        send = ("send", "lab/fan", "900", "--url", url)
        assert network.twincast(*send, at=network.other, TWINCAST_TOKEN=token).returncode == 0
        assert json.loads(network.twincast("get", "lab/fan", TWINCAST_TOKEN=owner).stdout) == 900
        names = network.twincast(*send[:-1], f"http://{HERE}:{PORT}", at=network.other, TWINCAST_TOKEN=token)
        assert names.returncode == 0
        assert network.twincast("keys", "revoke", "lab/fan").returncode == 0
        refused = network.twincast(*send, at=network.other, TWINCAST_TOKEN=token)
        assert (refused.returncode, "revoked" in refused.stderr) == (1, True)
        guessed = network.twincast("join", url, "0000-0000", at=network.other)
        assert (guessed.returncode, "not known here" in guessed.stderr) == (1, True)
        unknown = network.twincast(*send, at=network.other)
        assert (unknown.returncode, "asks for a login" in unknown.stderr) == (1, True)


def test_the_hosts_own_names_are_answered_and_others_are_not(network: Network) -> None:
    name = os.uname().nodename
    with network.serving():
        for host in (HERE, f"{HERE}:{PORT}", "[fd77::1]", name, f"{name.partition('.')[0].upper()}.local", "localhost"):
            asked = network.other.run("curl", "-sS", "-H", f"Host: {host}", f"http://{HERE}:{PORT}/api/status")
            assert json.loads(asked.stdout)["code"] == "unauthenticated", host
        for host in (PUBLIC, "rebound.example.org", THERE):
            asked = network.other.run("curl", "-sS", "-H", f"Host: {host}", f"http://{HERE}:{PORT}/api/status")
            assert json.loads(asked.stdout)["code"] == "forbidden", host


def test_a_phone_on_the_network_is_logged_in_by_the_code_of_the_first_start(network: Network, tmp_path: Path) -> None:
    wrapper = tmp_path / "chromium"
    wrapper.write_text(f'#!/bin/sh\nexec {" ".join(network.other.command(chromium()))} "$@"\n')
    wrapper.chmod(0o755)
    with network.serving() as server, sync_playwright() as playwright:
        page_url = server.found(r"\n +(http\S+#pair=\S+)\n")
        assert qr_in(server.printed) == qr_of(page_url)
        phone = playwright.chromium.launch(executable_path=str(wrapper), args=["--no-sandbox"])
        try:
            page = phone.new_context(**PHONE).new_page()
            page.set_default_timeout(DEADLINE_MS)
            expect.set_options(timeout=DEADLINE_MS)
            page.goto(page_url)
            expect(page.locator("#link-phase")).to_have_text("Live")
            expect(page.locator("#login")).to_be_hidden()
            assert page.url == f"http://{HERE}:{PORT}/dashboard"
            page.click('.views button[data-view="send"]')
            page.fill('#form-telemetry [name="device_id"]', "phone")
            page.fill('#form-telemetry [name="value"]', "1")
            page.click("#form-telemetry .primary")
            page.click('.views button[data-view="devices"]')
            expect(page.locator("#rows-body")).to_contain_text("phone")
        finally:
            phone.close()
        assert pattern_set(network) == ["lan/owner", "lan/phone"]


def test_a_restart_keeps_key_and_certificate_also_at_another_address(network: Network) -> None:
    url = f"https://{HERE}:{PORT}"
    with network.serving("--self-signed") as server:
        owner, pin = server.found(r"(twc_\S+)"), server.found(r"(sha256:[0-9a-f]{64})")
        assert "Plain HTTP" not in server.printed
        curl = server.found(r"\n +(curl .*)\n")
        answer = network.other.run("sh", "-c", f"{curl} -sS", env={**plain(), "TWINCAST_TOKEN": owner})
        assert json.loads(answer.stdout)["stored"] is True, answer
        line = server.found(r"\n +(async with connect.*)\n")
        program = (
            f"import asyncio\nfrom twincast.client import connect\nasync def main():\n {line}\nasyncio.run(main())"
        )
        ran = network.other.run(sys.executable, "-c", program, env={**plain(), "TWINCAST_TOKEN": owner})
        assert ran.returncode == 0, ran.stderr
        told = network.twincast("pair", "lab/fan", "--may", "publish")
        assert f"join {url} {told.stdout.strip()} --fingerprint {pin}" in told.stderr
        assert network.other.run("curl", "-sS", "-k", "-I", f"{url}/").stdout.count("Strict-Transport") == 0
    first = (network.folder / "twincast.db-tls-cert.pem").read_bytes()
    with network.serving("--self-signed") as server:
        assert server.found(r"(sha256:[0-9a-f]{64})") == pin
        assert "twc_" not in server.printed and "#pair" not in server.printed
        assert pattern_set(network) == ["lan/owner"]
        assert (network.folder / "twincast.db-tls-cert.pem").read_bytes() == first
    network.server.has("ip", "address", "add", "192.168.77.1/24", "dev", "own")
    with network.serving("--self-signed") as server:
        assert server.found(r"(sha256:[0-9a-f]{64})") == pin
        changed = x509.load_pem_x509_certificate((network.folder / "twincast.db-tls-cert.pem").read_bytes())
        names = changed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert {HERE, "192.168.77.1", "fd77::1"} <= {str(each) for each in names.get_values_for_type(x509.IPAddress)}
        assert PUBLIC not in map(str, names.get_values_for_type(x509.IPAddress))
        sent = network.twincast(
            "send", "lab/fan", "1", "--url", url, "--fingerprint", pin, at=network.other, TWINCAST_TOKEN=owner
        )
        assert sent.returncode == 0, sent.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", PUBLIC], f"{PUBLIC} is none"),
        (["--host", "0.0.0.0"], "0.0.0.0 is none"),
        (["--host", "example.org"], "example.org is none"),
        (["--host", "10.99.0.1"], f"no address of this machine; its private ones are: {HERE}"),
        (["--host", "127.0.0.1"], "leave --host out"),
        (["--behind-tls-proxy"], "one of them"),
        (["--journal", "memory:"], "a journal on disk"),
    ],
)
def test_what_is_not_for_a_network_of_ones_own_is_refused_and_nothing_is_made(
    network: Network, options: Sequence[str], words: str
) -> None:
    ran = network.twincast("serve", "--lan", *options)
    assert (ran.returncode, words in ran.stderr, "Traceback" in ran.stderr) == (1, True, False), ran.stderr
    assert list(network.folder.iterdir()) == []


def test_a_machine_with_public_addresses_alone_is_on_no_network_of_its_own(tmp_path: Path) -> None:
    with machines("lonely", "world") as (lonely, world):
        connect("open", lonely, world, (f"{PUBLIC}/24", f"{PUBLIC_PEER}/24"))
        lonely.run("ip", "-6", "address", "flush", "dev", "open")  # or it has one of this link
        ran = lonely.run(*TWINCAST, "serve", "--lan", cwd=tmp_path, env=plain())
        assert (ran.returncode, "it has none" in ran.stderr) == (1, True), ran.stderr
        assert list(tmp_path.iterdir()) == []


def test_one_private_address_may_be_chosen(network: Network) -> None:
    network.server.has("ip", "address", "add", "192.168.77.1/24", "dev", "own")
    with network.serving("--host", "192.168.77.1") as server:
        assert f"http://192.168.77.1:{PORT}/dashboard" in server.printed
        assert listened(network) == {"192.168.77.1", "127.0.0.1", "::1"}


def test_where_no_terminal_is_the_first_key_is_in_a_file_for_its_owner_alone(network: Network) -> None:
    process = subprocess.Popen(
        network.server.command(*TWINCAST, "serve", "--lan"),
        cwd=network.folder,
        env=plain(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        printed = ""
        while "Ctrl-C stops it" not in printed:
            line = process.stdout.readline()
            assert line, printed
            printed += line
        file = network.folder / "twincast.db-owner-key"
        owner = file.read_text().strip()
        assert file.stat().st_mode & 0o777 == 0o600
        assert str(file) in printed
        assert owner not in printed and "#pair=" not in printed
        assert network.twincast("status", TWINCAST_TOKEN=owner).returncode == 0
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=DEADLINE_S)
