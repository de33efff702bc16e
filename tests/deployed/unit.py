"""deploy/twincast.service in a Debian that boots, in a namespace with a network of its own."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.credentials import AUDIENCE, ISSUER, Issuer
from tests.deployed.system import header_commands, run, say
from tests.running import ROOT, eventually

UNIT = ROOT / "deploy/twincast.service"
STATE = "/var/lib/private/twincast"
READINGS = 400
READ_LOG = f"""
import apsw
log = apsw.Connection("{STATE}/twincast.db").execute("select value from log where device_id = 'counter' order by seq")
print(*(value for (value,) in log))
"""
DEADLINE_S = 120.0


class Machine:
    """A Debian that has booted; `leader` is its first process, as this machine counts."""

    def __init__(self, leader: int) -> None:
        self._enter = ["nsenter", f"--target={leader}", "--all", "--wdns=/root", "env", "-i", "HOME=/root"]
        self._enter += ["PATH=/usr/sbin:/usr/bin:/sbin:/bin:/opt/twincast/bin"]

    def command(self, text: str, **env: str) -> list[str]:
        return [*self._enter, *(f"{name}={value}" for name, value in env.items()), "sh", "-c", text]

    def run(self, text: str, *, fails: bool = False, **env: str) -> str:
        return run(self.command(text, **env), fails=fails).strip()

    def shown(self, name: str) -> str:
        """Return a property of the service."""
        return self.run(f"systemctl show --value --property={name} twincast")

    def status(self, token: str) -> dict[str, Any]:
        """Return what the server says to who presents a credential."""
        told: dict[str, Any] = json.loads(self.run("twincast status --json", TWINCAST_TOKEN=token))
        return told

    def refuses(self, token: str, why: str) -> None:
        printed = self.run("twincast status", TWINCAST_TOKEN=token, fails=True)
        assert why in printed, printed

    def seq(self, token: str) -> int:
        """Return the server's position, 0 while it is down."""
        try:
            return int(self.status(token)["seq"])
        except AssertionError:
            return 0

    def up(self, token: str) -> None:
        ask = self.command("twincast status", TWINCAST_TOKEN=token)
        eventually(
            lambda: subprocess.run(ask, capture_output=True, check=False).returncode == 0,
            "the server answers",
            DEADLINE_S,
        )

    def configure(self, *lines: str) -> None:
        """Write what `systemctl edit` would; without lines, take it away."""
        folder = "/etc/systemd/system/twincast.service.d"
        text = "\n".join(["[Service]", *lines])
        write = f"mkdir -p {folder}; cat >{folder}/override.conf <<'END'\n{text}\nEND\n" if lines else f"rm -r {folder}"
        self.run(f"{write}\nsystemctl daemon-reload")


def prove(folder: Path, system: Path) -> None:
    root = folder / "unit"
    run(["cp", "-a", system, root])
    shutil.copy(UNIT, root / "root")
    (wheel,) = (system / "wheels").glob("twincast-*.whl")
    shutil.copy(wheel, root / "root")
    issuer = Issuer()
    (root / "etc/issuer.pem").write_text(issuer.pem())
    *install, add_key, start = header_commands(UNIT)
    with booted(root, folder / "console") as machine:
        for each in install:
            machine.run(each)
        assert machine.run("systemd-analyze verify /etc/systemd/system/twincast.service 2>&1") == ""
        key = machine.run(add_key)
        machine.run(start)
        machine.up(key)
        machine.refuses("", "this server asks for a login")
        say("ok: the header's commands start it, and it asks for the key that they make")
        _is_shut_in(machine)
        _loses_nothing(machine, key)
        _takes_keys_beside_it(machine, key, add_key)
        _takes_tokens(machine, issuer)
        assert "Traceback" not in machine.run("journalctl --unit=twincast")
        _is_refused(machine, start, add_key)


@contextmanager
def booted(root: Path, console: Path) -> Iterator[Machine]:
    # Where no systemd runs, there is nobody to tell of the new machine.
    alone = [] if Path("/run/systemd/system").is_dir() else ["--register=no", "--keep-unit"]
    command = ["systemd-nspawn", "--quiet", "--boot", "--private-network", f"--directory={root}", *alone]
    with console.open("w") as printed:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=printed, stderr=subprocess.STDOUT)
    try:
        leader = eventually(lambda: _first_process_in(process.pid), "the machine starts", DEADLINE_S)
        machine = Machine(leader)
        ask = machine.command("systemctl is-system-running")
        eventually(
            lambda: subprocess.run(ask, capture_output=True, check=False).stdout in {b"running\n", b"degraded\n"},
            "the machine has booted",
            DEADLINE_S,
        )
        yield machine
    finally:
        process.terminate()  # it shuts the machine down
        process.wait(DEADLINE_S)


def _first_process_in(nspawn: int) -> int:
    """Return the child that counts itself as 1 and is systemd already, 0 if none is: there are others on the way."""
    for child in Path(f"/proc/{nspawn}/task/{nspawn}/children").read_text().split():
        with suppress(FileNotFoundError):
            told = Path(f"/proc/{child}/status").read_text()
            if re.search(r"^Name:\tsystemd$", told, re.M) and re.search(r"^NSpid:.*\t1$", told, re.M):
                return int(child)
    return 0


def _is_shut_in(machine: Machine) -> None:
    told = dict(line.split(":\t", 1) for line in machine.run(_of_process("status")).splitlines() if ":\t" in line)
    assert "0" not in told["Uid"].split()
    assert (int(told["CapEff"], 16), told["NoNewPrivs"], told["Seccomp"]) == (0, "1", "2")
    modes = dict(line.split() for line in machine.run(f"find {STATE} -printf '%f %m\\n'").splitlines())
    assert modes.pop("twincast") == "700"
    assert "twincast.db" in modes and set(modes.values()) == {"600"}
    libraries = machine.run(_of_process("maps"))
    assert all(name in libraries for name in ("uvloop", "msgspec", "apsw", "picows"))
    score = machine.run("systemd-analyze security --no-pager twincast | tail -n 1")
    say(f"ok: its files are its own, its user is not root, and systemd says: {score.strip('→ ')}")


def _loses_nothing(machine: Machine, key: str) -> None:
    text = f"for n in $(seq {READINGS}); do echo $n; sleep 0.03; done | twincast send counter -"
    sender = subprocess.Popen(machine.command(text, TWINCAST_TOKEN=key), stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: machine.seq(key) > 20, "readings come", DEADLINE_S)
        machine.run("systemctl restart twincast")
        before = eventually(lambda: machine.seq(key), "it is back", DEADLINE_S)
        eventually(lambda: machine.seq(key) > before, "readings come again", DEADLINE_S)
        assert sender.poll() is None
        killed = machine.shown("MainPID")
        machine.run(f"kill -9 {killed}")
        eventually(lambda: machine.seq(key), "systemd brings it back", DEADLINE_S)
        assert machine.shown("MainPID") != killed and machine.shown("NRestarts") == "1"
        assert sender.wait(DEADLINE_S) == 0
    finally:
        sender.kill()
    stored = machine.run(f"/opt/twincast/bin/python - <<'END'\n{READ_LOG}END").split()
    assert stored == [str(number) for number in range(1, READINGS + 1)]
    say(f"ok: {READINGS} readings are there once each and in order, after a restart and a kill among them")


def _takes_keys_beside_it(machine: Machine, key: str, add_key: str) -> None:
    second = machine.run(add_key.replace("NAME", "second"))
    assert machine.status(second)["identity"] != machine.status(key)["identity"]
    change = add_key.partition(" keys ")[0]
    assert "second" in machine.run(f"{change} keys list")
    machine.run(f"{change} keys revoke second")
    machine.refuses(second, "revoked")
    machine.status(key)
    modes = machine.run(f"find {STATE} -printf '%m\\n'").split()
    assert sorted(set(modes)) == ["600", "700"] and modes.count("700") == 1
    say("ok: a key that is made or revoked beside it counts at once")


def _takes_tokens(machine: Machine, issuer: Issuer) -> None:
    machine.configure(
        "Environment=TWINCAST_JWT_KEY=/etc/issuer.pem",
        f"Environment=TWINCAST_JWT_ISSUER={ISSUER} TWINCAST_JWT_AUDIENCE={AUDIENCE}",
    )
    machine.run("systemctl restart twincast")
    token = issuer.token(twincast={"read": ["*"]})
    machine.up(token)
    assert machine.status(token)["identity"] == "jwt:alice"
    assert "cryptography" in machine.run(_of_process("maps"))
    machine.configure()
    say("ok: it verifies tokens, shut in as it is")


def _is_refused(machine: Machine, start: str, add_key: str) -> None:
    machine.run(f"systemctl stop twincast; rm -r {STATE}")
    machine.configure("Environment=TWINCAST_ALLOW_HOST=[twin]")
    machine.run(start)
    eventually(lambda: machine.shown("ActiveState") == "failed", "a wrong setting ends it", DEADLINE_S)
    assert machine.shown("NRestarts") == "0"
    assert "TWINCAST_ALLOW_HOST" in machine.run("journalctl --unit=twincast --output=cat | tail -n 4")
    say("ok: a setting that it cannot read ends it, and the journal says which")
    machine.configure()
    machine.run(start)
    eventually(lambda: machine.shown("NRestarts") == "2", "it tries again", DEADLINE_S)
    assert "twincast keys add NAME" in machine.run("journalctl --unit=twincast --output=cat | tail -n 12")
    machine.up(machine.run(add_key))
    say("ok: without a key it does not start, and the journal says so; with one it comes up by itself")


def _of_process(file: str) -> str:
    return f"cat /proc/$(systemctl show --value --property=MainPID twincast)/{file}"
