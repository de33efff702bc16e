"""deploy/twincast.service in a Debian that boots, in a namespace with a network of its own."""

import shutil
import subprocess
from pathlib import Path

from tests.credentials import AUDIENCE, ISSUER, Issuer
from tests.deployed.machine import DEADLINE_S, Machine, booted
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


def _is_shut_in(machine: Machine) -> None:
    machine.is_shut_in("twincast", STATE)
    assert machine.run(f"ls {STATE}/twincast.db")
    libraries = machine.of_process("maps")
    assert all(name in libraries for name in ("uvloop", "msgspec", "apsw", "picows"))
    say(f"ok: its files are its own, its user is not root, and systemd says: {machine.score('twincast')}")


def _loses_nothing(machine: Machine, key: str) -> None:
    text = f"for n in $(seq {READINGS}); do echo $n; sleep 0.03; done | twincast send counter -"
    sender = subprocess.Popen(machine.command(text, TWINCAST_TOKEN=key), stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: machine.seq(key) > 20, "readings come", DEADLINE_S)
        machine.run("systemctl restart twincast")
        before = eventually(lambda: machine.seq(key), "it is back", DEADLINE_S)
        eventually(lambda: machine.seq(key) > before, "readings come again", DEADLINE_S)
        assert sender.poll() is None
        machine.comes_back()
        eventually(lambda: machine.seq(key), "systemd brings it back", DEADLINE_S)
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
    assert "cryptography" in machine.of_process("maps")
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
