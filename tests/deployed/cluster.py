"""deploy/cluster/ on three Debians that boot, and nginx on a fourth, on a bridge that nobody else has."""

import os
import re
import shutil
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import nkeys  # type: ignore[import-untyped]

from tests.credentials import bearer, certificate
from tests.deployed.counter import Counter
from tests.deployed.machine import DEADLINE_S, Casing, Machine
from tests.deployed.system import header_commands, run, run_until_done, say
from tests.running import ROOT, eventually

FILES = ROOT / "deploy/cluster"
ADDRESSES = {"n1": "10.0.0.1", "n2": "10.0.0.2", "n3": "10.0.0.3"}
"""The machines that keep the log and serve it, as cluster.env and nginx.conf have them: no file has to be changed."""
SITE, PROXY, HERE = "twin.example.org", "10.0.0.9", "10.0.0.100"
URL = f"https://{SITE}"
BRIDGE = "twincast"
UNITS = {"nats": "/var/lib/private/nats", "twincast": "/var/lib/private/twincast"}
READ_COPY = f"""
import apsw
log = apsw.Connection("{UNITS["twincast"]}/lab.db")
print(*(value for (value,) in log.execute("select value from log where device_id = 'counter' order by seq")))
"""


def prove(folder: Path, system: Path) -> None:
    """Prove it. The caller has made the namespaces: this makes a bridge, and changes what names mean."""
    _join_the_bridge(folder)
    with ExitStack() as stack:
        cluster = Cluster(folder, system, stack)
        cluster.set_up()
        say("ok: the header's commands, prepare.py and the files start three nodes and three servers, nginx in front")
        for unit, files in UNITS.items():
            for machine in cluster.servers.values():
                machine.is_shut_in(unit, files)
            say(f"ok: {unit}.service runs without any right of root; systemd says: {machine.score(unit)}")
        _has_one_log(cluster)
        _loses_nothing(cluster)
        for machine in cluster.servers.values():  # by whatever name they found each other
            assert "certificate" not in machine.run("journalctl --unit=nats")
        _says_what_is_wrong(cluster)
        for machine in cluster.servers.values():
            assert "Traceback" not in machine.run("journalctl --unit=twincast")


def _join_the_bridge(folder: Path) -> None:
    run(["ip", "link", "set", "lo", "up"])
    run(["ip", "link", "add", BRIDGE, "type", "bridge"])
    run(["ip", "address", "add", f"{HERE}/24", "dev", BRIDGE])
    run(["ip", "link", "set", BRIDGE, "up"])
    (folder / "hosts").write_text(_hosts())
    run(["mount", "--bind", folder / "hosts", "/etc/hosts"])


def _hosts() -> str:
    lines = ["127.0.0.1 localhost", f"{PROXY} {SITE}"]
    return "\n".join([*lines, *(f"{address} {_name(node)}" for node, address in ADDRESSES.items()), ""])


def _name(node: str) -> str:
    return f"{node}.example.org"


class Cluster:
    """Three machines that serve, and one in front; what is asked of them, with the first key."""

    def __init__(self, folder: Path, system: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.servers: dict[str, Machine] = {}
        self.casings: dict[str, Casing] = {}
        for node, address in ADDRESSES.items():
            run(["cp", "-a", system, folder / node])
            for file in ("nats.service", "twincast.service", "prepare.py"):
                shutil.copy(FILES / file, folder / node / "root")
            (wheel,) = (system / "wheels").glob("twincast-*.whl")
            shutil.copy(wheel, folder / node / "root")
            self._encase(folder / node, address, stack)
        self._encase(folder / "nginx", PROXY, stack)
        self._trusting = ssl.create_default_context()
        self.key = self.admin = ""

    def _encase(self, root: Path, address: str, stack: ExitStack) -> None:
        (root / "etc/hostname").write_text(f"{root.name}\n")
        (root / "etc/hosts").write_text(_hosts())
        network = f"[Match]\nName=host0\n\n[Network]\nAddress={address}/24\n"
        (root / "etc/systemd/network/10-host0.network").write_text(network)
        run(["chroot", root, "systemctl", "enable", "systemd-networkd"])
        self.casings[root.name] = Casing(root, self.folder / f"{root.name}-console", bridge=BRIDGE)
        stack.callback(self.casings[root.name].stop)

    def boot(self, node: str) -> None:
        self.servers[node] = self.casings[node].boot()

    def set_up(self) -> None:
        """Do as the head of twincast.service says."""
        install, copy, start_node, *make_key, start = header_commands(FILES / "twincast.service")
        for node in ADDRESSES:
            self.boot(node)
        self._on_each(install)
        self._prepare()
        self._on_each(copy)
        for unit in UNITS:
            self._on_each(f"! systemd-analyze verify /etc/systemd/system/{unit}.service 2>&1 | grep .")
        self._on_each(start_node)
        make = "\n".join(make_key)
        self.key = run_until_done(lambda: self.servers["n1"].run(make), "a key is made")
        self.admin = self.servers["n2"].run(make.replace("NAME --may publish,read", "admin --may admin,read"))
        self._on_each(start)
        self.casings["nginx"].boot()
        for node in ADDRESSES:
            self.is_ready(node)
        eventually(lambda: len(self._known()) == len(ADDRESSES), "the servers know each other", DEADLINE_S)

    def _on_each(self, command: str) -> None:
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda machine: machine.run(command), self.servers.values()))

    def _prepare(self) -> None:
        made = self.folder / "n1/root/made"
        names = " ".join(map(_name, ADDRESSES))
        keys = self.servers["n1"].run(f"/opt/twincast/bin/python prepare.py made {names}")
        made = Path(shutil.move(made, self.folder / "made"))  # "keep it away from the nodes"
        for node, address in ADDRESSES.items():
            own = self.folder / node / "etc/twincast"
            own.mkdir()
            files = [made / "ca.pem", made / "servers.nk", *(made / _name(node)).iterdir(), FILES / "nats-server.conf"]
            for file in files:
                shutil.copy(file, own)
            (own / "cluster.env").write_text(_environment(node, address, keys))
        front = self.folder / "nginx"
        (front / "etc/twincast").mkdir()
        (front / "etc/ssl/twincast").mkdir(parents=True)
        shutil.copy(made / "ca.pem", front / "etc/twincast")
        shutil.copy(FILES / "nginx.conf", front / "etc/nginx/conf.d/twincast.conf")
        self.site_cert, _ = certificate(front / "etc/ssl/twincast", SITE)
        for ca in (made / "ca.pem", self.site_cert):
            self._trusting.load_verify_locations(ca)

    def get(self, path: str, node: str | None = None) -> Any:
        """Ask a server, or whichever nginx asks."""
        url = URL if node is None else f"https://{_name(node)}:8000"
        headers = {**bearer(self.admin), "Host": SITE}
        answer = httpx.get(url + path, headers=headers, verify=self._trusting, timeout=30)
        return answer.raise_for_status().json()

    def post(self, node: str, body: dict[str, Any]) -> Any:
        headers = {**bearer(self.key), "Host": SITE}
        url = f"https://{_name(node)}:8000/api/data"
        answer = httpx.post(url, json=body, headers=headers, verify=self._trusting, timeout=30)
        return answer.raise_for_status().json()

    def place_of(self, device_id: str, node: str | None = None) -> tuple[str, int]:
        """Return epoch and seq of a device's newest reading; of none, if it cannot be told now."""
        try:
            told = self.get(f"/api/data/{quote(device_id, safe='')}", node)
        except httpx.HTTPError:
            return "", 0
        return told["epoch"], told["seq"]

    def reaches(self, node: str, stored: dict[str, Any]) -> None:
        """Wait until a server has an entry, where it was stored."""
        place = stored["epoch"], stored["seq"]
        self.servers[node].eventually(lambda: self.place_of(stored["device_id"], node) == place, f"it has {stored}")

    def goes_on(self, node: str | None = None) -> None:
        """Wait until what is sent is stored, as a server tells, or whichever nginx asks."""
        before = 0
        for _ in range(2):
            eventually(lambda since=before: self.place_of("counter", node)[1] > since, "readings come", DEADLINE_S)  # type: ignore[misc]
            before = self.place_of("counter", node)[1]

    def is_ready(self, node: str) -> None:
        """Wait until a server says that it is."""

        def is_well() -> bool:
            try:
                return bool(self.get("/api/status", node)["ok"])
            except httpx.HTTPError:
                return False

        self.servers[node].eventually(is_well, f"the server on {node} is well")

    def _known(self) -> list[Any]:
        try:
            servers: list[Any] = self.get("/api/cluster")["servers"]
        except httpx.HTTPError:
            return []
        return servers


def _environment(node: str, address: str, keys: str) -> str:
    """Return cluster.env as it is on a machine, with the lines that prepare.py has printed."""
    text = (FILES / "cluster.env").read_text()
    own = {"NATS_NODE": node, "NATS_NAME": _name(node), "NATS_HOST": address, "TWINCAST_HOST": address}
    own |= dict(line.split("=", 1) for line in keys.splitlines())
    for name, value in own.items():
        text, changed = re.subn(rf"^{name}=.*$", f"{name}={value}", text, flags=re.M)
        assert changed == 1, name
    return text


def _has_one_log(cluster: Cluster) -> None:
    for number, node in enumerate(ADDRESSES):
        stored = cluster.post(node, {"device_id": "lab/lamp", "value": number})["event"]
        for other in ADDRESSES:
            cluster.reaches(other, stored)
    say("ok: what one of the servers takes, all have, at the same position of the same epoch")


def _loses_nothing(cluster: Cluster) -> None:
    counter = Counter(URL, cluster.key, cluster.site_cert, cluster.folder / "sent")
    try:
        cluster.goes_on()
        _is_restarted(cluster)
        _is_killed(cluster)
        _loses_machines(cluster)
        count = counter.finish()
    finally:
        counter.kill()
    read = f"/opt/twincast/bin/python - <<'END'\n{READ_COPY}END"
    expected = " ".join(map(str, range(1, count + 1)))
    for machine in cluster.servers.values():
        machine.eventually(lambda machine=machine: machine.run(read) == expected, "its copy has each reading once")  # type: ignore[misc]
    say(f"ok: the copy of each machine has the {count} readings of all this time once each and in order")


def _is_restarted(cluster: Cluster) -> None:
    for node, machine in cluster.servers.items():
        machine.run("systemctl restart twincast")
        cluster.is_ready(node)
        cluster.goes_on()
    say("ok: each server was restarted")


def _is_killed(cluster: Cluster) -> None:
    for unit in UNITS:
        for node, machine in cluster.servers.items():  # one of them is the leader's node
            machine.comes_back(unit)
            cluster.is_ready(node)
            cluster.goes_on()
    say("ok: each server and each node was killed, and systemd started it again")


def _loses_machines(cluster: Cluster) -> None:
    for node, end in (("n1", Casing.stop), ("n2", Casing.cut)):
        end(cluster.casings[node])
        cluster.goes_on()
        cluster.boot(node)
        cluster.is_ready(node)
        cluster.goes_on(node)
    say("ok: a machine was shut down and another lost its power; two served on, and it caught up")


def _says_what_is_wrong(cluster: Cluster) -> None:
    machine = cluster.servers["n3"]
    made, own = cluster.folder / "made", cluster.folder / "n3/etc/twincast"
    unknown = bytes(nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER))
    with _other(own / "servers.nk", unknown):
        _says(machine, "twincast", r"refuses this server: the user in \S*/servers\.nk must be one")
    with _other(own / "servers.nk", (made / "sensors.nk").read_bytes()):
        _says(machine, "twincast", r"permissions violation for publish")
    with _other(own / "ca.pem", cluster.site_cert.read_bytes()):
        _says(machine, "twincast", r"do not agree on TLS: .*certificate verify failed")
    (journal,) = re.findall(r"^Environment='TWINCAST_JOURNAL=.*$", (FILES / "twincast.service").read_text(), re.M)
    machine.configure(re.sub(r"tls://[^/]*", f"tls://{ADDRESSES['n1']}", journal))
    _says(machine, "twincast", rf"do not agree on TLS: .*not valid for '{ADDRESSES['n1']}'")
    machine.configure()
    node, other = cluster.servers["n1"], made / _name("n2")
    with (
        _other(own / "cert.pem", (other / "cert.pem").read_bytes()),
        _other(own / "key.pem", (other / "key.pem").read_bytes()),
    ):
        machine.run("systemctl restart nats")
        _says(node, "nats", f"certificate is valid for {_name('n2')}, twincast, not {_name('n3')}")
    for unit in UNITS:
        machine.run(f"systemctl restart {unit}")
    cluster.is_ready("n3")
    say("ok: a wrong nkey, authority or name is in the journal, and once it is right, the server is")


@contextmanager
def _other(file: Path, data: bytes) -> Iterator[None]:
    """Have other bytes in a file for a while."""
    right = file.read_bytes()
    file.write_bytes(data)
    try:
        yield
    finally:
        file.write_bytes(right)


def _says(machine: Machine, unit: str, why: str) -> None:
    since = machine.run("date +@%s")
    machine.run(f"systemctl restart {unit}")
    machine.eventually(lambda: re.search(why, machine.said(unit, since)), f"it says {why}", unit)
