"""deploy/cluster/, run for real: three NATS nodes, three servers and nginx by these very files, on loopback.

Only addresses, ports and paths are changed. What is not run here, the units on machines of their own and the compose
file, `scripts/deploy` runs.
"""

import asyncio
import json
import logging
import os
import re
import shlex
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import nkeys  # type: ignore[import-untyped]
import pytest
import yaml  # type: ignore[import-untyped]  # schemathesis brings it
from nats.aio.client import Client
from nats.errors import NoRespondersError

from tests import warm
from tests.credentials import bearer, certificate
from tests.running import DEADLINE_S, ROOT, eventually, free_port
from tests.test_deploy import analyze, needed, running
from twincast.client.sync import connect
from twincast.errors import JournalUnavailable, JournalUnusable
from twincast.journal.jetstream.address import NatsAddress
from twincast.journal.jetstream.link import Link
from twincast.settings import Settings

DEPLOY = ROOT / "deploy" / "cluster"
NODES = ("n1", "n2", "n3")
USERS = ("servers", "admin", "sensors", "dashboard", "operator")
HOST = "127.0.0.1"
NATS_SERVER = str(Path(sys.executable).parent / "nats-server")


class Made:
    """What `prepare.py` makes, and the ports of this run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "tls"
        command = [sys.executable, str(DEPLOY / "prepare.py"), str(self.folder), HOST]
        printed = warm.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
        self.nkeys = dict(line.split("=", 1) for line in printed.splitlines())
        self.clients = {node: free_port() for node in NODES}
        self.routes = {node: free_port() for node in NODES}
        self.servers = {node: free_port() for node in NODES}

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    def url(self, user: str, **options: str) -> str:
        where = ",".join(f"{HOST}:{port}" for port in self.clients.values())
        given = {"nkey": str(self.folder / f"{user}.nk"), "ca": str(self.ca), "replicas": "3", **options}
        return f"tls://{where}/lab?" + "&".join(f"{name}={value}" for name, value in given.items())


def node(made: Made, name: str, folder: Path) -> tuple[list[str], dict[str, str]]:
    text = (DEPLOY / "nats-server.conf").read_text()
    text = text.replace("port: 4222", f"port: {made.clients[name]}").replace("port: 6222", f"port: {made.routes[name]}")
    for other in NODES:
        text = text.replace(f"{other}.example.org:6222", f"{HOST}:{made.routes[other]}")
    (folder / "nats-server.conf").write_text(text)
    own = made.folder / HOST
    env = {
        **made.nkeys,
        **{"NATS_NODE": name, "NATS_NAME": HOST, "NATS_HOST": HOST, "NATS_STORE": str(folder), "NATS_CA": str(made.ca)},
        **{"NATS_CERT": str(own / "cert.pem"), "NATS_KEY": str(own / "key.pem")},
    }
    return [NATS_SERVER, "-c", str(folder / "nats-server.conf")], env


def server(made: Made, name: str, folder: Path) -> tuple[list[str], dict[str, str]]:
    own = made.folder / HOST
    env = {
        **{name: value for name, value in unit_environment("twincast.service").items() if name.startswith("TWINCAST_")},
        "TWINCAST_JOURNAL": made.url("servers", copy=str(folder / "lab.db"), **{"as": name}),
        **{"TWINCAST_TLS_CERT": str(own / "cert.pem"), "TWINCAST_TLS_KEY": str(own / "key.pem")},
        **{"TWINCAST_HOST": HOST, "TWINCAST_PORT": str(made.servers[name]), "TWINCAST_NATS_KEY": "me"},
    }
    return [sys.executable, "-m", "twincast", "serve"], env


def nginx(made: Made, folder: Path, cert: Path, key: Path, port: int) -> list[str]:
    text = (DEPLOY / "nginx.conf").read_text()
    text = text.replace("listen 80;", f"listen {HOST}:{free_port()};")
    text = text.replace("listen 443 ssl;", f"listen {HOST}:{port} ssl;")
    text = text.replace("/etc/ssl/twincast/cert.pem", str(cert)).replace("/etc/ssl/twincast/key.pem", str(key))
    text = text.replace("/etc/twincast/ca.pem", str(made.ca)).replace("twin.example.org", "localhost")
    for name in NODES:
        text = text.replace(f"{name}.example.org:8000", f"{HOST}:{made.servers[name]}")
    (folder / "site.conf").write_text(text)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{name}_temp_path {folder}/{name};" for name in kinds)
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log stderr; worker_processes 1; events {{}}"
        f" http {{ access_log off; {paths} include {folder}/site.conf; }}"
    )
    warm.run([needed("nginx"), "-t", "-c", str(folder / "nginx.conf")], check=True, capture_output=True)
    return [needed("nginx"), "-c", str(folder / "nginx.conf"), "-e", "stderr"]


class Running:
    """The nodes, servers and nginx of one test, each in a folder of its own."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self._stack = folder, stack
        self.made = Made(folder)
        self.processes: dict[str, subprocess.Popen[Any]] = {}

    def start(self, name: str, command: list[str], env: dict[str, str], folder: Path) -> None:
        printed = self._stack.enter_context((folder / "printed").open("a"))
        process = warm.Popen(
            command, cwd=folder, env={**os.environ, **env, "PYTHONPATH": str(ROOT)}, stdout=printed, stderr=printed
        )
        self.processes[name] = process
        self._stack.callback(process.wait, 30)
        self._stack.callback(process.kill)

    def kill(self, name: str) -> None:
        self.processes[name].kill()
        self.processes[name].wait(30)

    def own(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return folder

    def printed(self) -> str:
        return "\n".join(f"{each}: {each.read_text()[-1500:]}" for each in self.folder.glob("*/printed"))


@contextmanager
def cluster(folder: Path) -> Iterator[tuple[Running, str]]:
    """Start the nodes, make the keys, start the servers; return when all are ready, with the key."""
    with ExitStack() as stack:
        it = Running(folder, stack)
        for name in NODES:
            it.start(name, *node(it.made, name, it.own(name)), it.own(name))
        token = key(it.made, "me", "--may", "publish,read,command,admin", "--devices", "*")
        for name in NODES:
            it.start(f"s-{name}", *server(it.made, name, it.own(f"s-{name}")), it.own(f"s-{name}"))
        try:
            for name in NODES:
                eventually(lambda port=it.made.servers[name]: is_ready(it.made, port), f"{name} is ready", 60)  # type: ignore[misc]
        except AssertionError as error:
            raise AssertionError(it.printed()) from error
        yield it, token


def key(made: Made, name: str, *may: str) -> str:
    command = [sys.executable, "-m", "twincast", "keys", "add", name, *may, "--journal", made.url("servers")]
    problems: list[str] = []

    def added() -> str:
        result = warm.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        problems.append(result.stderr)
        return result.stdout.strip() if result.returncode == 0 else ""

    try:  # nodes that have just begun elect a leader first
        return eventually(added, f"the key {name} is made", 60).splitlines()[-1]
    except AssertionError as error:
        raise AssertionError(problems[-1]) from error


def is_ready(made: Made, port: int) -> bool:
    try:
        return httpx.get(f"https://{HOST}:{port}/readyz", verify=ssl.create_default_context(cafile=made.ca)).is_success
    except httpx.TransportError:
        return False


def test_the_cluster_of_these_files_loses_a_server_and_a_node_and_nothing_else(tmp_path: Path) -> None:
    cert, key_file = certificate(tmp_path)
    port, front = free_port(), tmp_path / "front"
    front.mkdir()
    trusting = ssl.create_default_context(cafile=str(cert))
    url = f"https://localhost:{port}"
    with (
        cluster(tmp_path) as (it, token),
        running(nginx(it.made, front, cert, key_file, port), front),
        httpx.Client(base_url=url, verify=trusting, headers=bearer(token), timeout=30) as http,
    ):
        eventually(lambda: answers(http), "nginx answers")
        eventually(lambda: len(http.get("/api/cluster").json()["servers"]) == 3, "the servers know each other")
        asyncio.run(_users_may_what_is_theirs(it.made))
        with connect(url, token=token, tls=trusting) as client:
            client.reached(client.publish("lab/count", 1))
            it.kill("s-n1")
            for value in range(2, 20):
                client.publish("lab/count", value)
            it.kill("n2")
            seq = client.publish("lab/count", 20)  # at a server that lives, by two nodes
        for _ in range(6):  # whichever server nginx thinks of first: one whose node was killed is a little late
            newest = http.get("/api/data/lab%2Fcount", params={"min_seq": seq})
            assert newest.json()["value"] == 20, newest.text
        name = "a b//%2F"
        http.post("/api/data", json={"device_id": name, "value": 1}).raise_for_status()
        eventually(lambda: http.delete("/api/data/a%20b%2F%2F%252F").status_code == 200, "a deletion comes through")
        epoch = http.get("/api/status").json()["epoch"]
        told = http.get("/api/events", params={"since": f"{epoch}:0", "limit": 1000}).json()["events"]
        assert [each["value"] for each in told if each.get("device_id") == "lab/count"] == list(range(1, 21))
        # What the servers themselves wanted and NATS refused: nothing but what the test had asked with their key.
        own = re.compile(rf'{it.made.nkeys["NKEY_SERVERS"]}.*Violation.*"(.*)"')
        refused = [subject for each in NODES for subject in own.findall((tmp_path / each / "printed").read_text())]
        assert {*refused} == {"$JS.API.STREAM.DELETE.twincast_lab"}


async def _users_may_what_is_theirs(made: Made) -> None:
    sensors = await _client(made, "sensors", b"_INBOX_sensors")
    dashboard = await _client(made, "dashboard", b"_INBOX")
    operator = await _client(made, "operator", b"_INBOX_operator")
    seen: asyncio.Queue[Any] = asyncio.Queue()
    await dashboard.subscribe("twincast.lab.data.>", cb=seen.put)
    await dashboard.flush()
    assert (await _answer(sensors, "twincast.lab.publish.sensors.t", b"21.5"))["ok"]
    assert (await _answer(operator, "twincast.lab.command.lab.fan", b'{"command":"on"}'))["ok"]
    assert json.loads((await asyncio.wait_for(seen.get(), 10)).data)["value"] == 21.5
    for client in (sensors, dashboard, operator):  # the log, what servers say, and JetStream itself are not theirs
        for subject in ("log", "keys", "server.x", "ticket.x", "data.x"):
            assert await _is_refused(client, f"twincast.lab.{subject}")
        assert await _is_refused(client, "$JS.API.STREAM.DELETE.twincast_lab")
    servers = await _client(made, "servers", b"_INBOX")  # nor may a server that was broken into remove the log
    assert await _is_refused(servers, "$JS.API.STREAM.DELETE.twincast_lab")
    assert not await _is_refused(servers, "twincast.lab.server.nobody")
    for client in (sensors, dashboard, operator, servers):
        await client.close()


async def _client(made: Made, user: str, inbox: bytes) -> Client:
    client = Client()
    client.problems = []  # type: ignore[attr-defined]

    async def note(error: Exception) -> None:
        client.problems.append(str(error))  # type: ignore[attr-defined]

    await client.connect(
        [f"tls://{HOST}:{port}" for port in made.clients.values()],
        nkeys_seed=str(made.folder / f"{user}.nk"),
        tls=ssl.create_default_context(cafile=made.ca),
        inbox_prefix=inbox,
        error_cb=note,
    )
    return client


async def _answer(client: Client, subject: str, payload: bytes) -> Any:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                return json.loads((await client.request(subject, payload, timeout=10)).data)
            except NoRespondersError:  # the servers find out first which of them it is
                await asyncio.sleep(0.1)


async def _is_refused(client: Client, subject: str) -> bool:
    before = len(client.problems)  # type: ignore[attr-defined]
    await client.publish(subject, b"{}")
    for _ in range(2):  # the first ping may overtake the message in nats-py's buffer
        await client.flush()
        await asyncio.sleep(0.01)
    return any("permissions violation" in each.lower() for each in client.problems[before:])  # type: ignore[attr-defined]


def answers(http: httpx.Client) -> bool:
    try:
        return http.get("/api/status").is_success
    except httpx.TransportError:
        return False


def test_caddy_takes_its_file(tmp_path: Path) -> None:
    made = Made(tmp_path)
    text = (DEPLOY / "Caddyfile").read_text().replace("/etc/twincast/ca.pem", str(made.ca))
    (tmp_path / "Caddyfile").write_text(text)
    command = [needed("caddy"), "validate", "--config", str(tmp_path / "Caddyfile"), "--adapter", "caddyfile"]
    env = {**os.environ, "HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    result = warm.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr


def unit_settings(file: str, name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", (DEPLOY / file).read_text(), re.M)


def unit_environment(file: str) -> dict[str, str]:
    words = [word for line in unit_settings(file, "Environment") for word in shlex.split(line)]
    return dict(word.split("=", 1) for word in words)


def machine_environment() -> dict[str, str]:
    lines = (DEPLOY / "cluster.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.mark.parametrize("file", ["twincast.service", "nats.service"])
def test_a_unit_is_one_that_systemd_takes_and_shuts_its_program_in(file: str, tmp_path: Path) -> None:
    text = re.sub(r"^(Exec\w+)=.*$", r"\1=/bin/true", (DEPLOY / file).read_text(), flags=re.M)
    (tmp_path / file).write_text(text)
    assert analyze("verify", "--man=no", str(tmp_path / file)) == (0, "")
    status, printed = analyze("security", "--offline=true", "--threshold=12", str(DEPLOY / file))
    assert status == 0, printed


def test_the_units_start_in_any_order() -> None:
    assert "nats.service" in unit_settings("twincast.service", "After")[0]
    assert "Requires=" not in re.sub(r"^#.*$", "", (DEPLOY / "twincast.service").read_text(), flags=re.M)


def test_the_files_name_settings_and_variables_that_exist() -> None:
    known = {f"TWINCAST_{name.upper()}" for name in Settings.model_fields}
    for file in DEPLOY.iterdir():
        assert set(re.findall(r"TWINCAST_[A-Z_]+", file.read_text())) <= known, file
    asked = set(re.findall(r"(?<=: )\$([A-Z_]+)", (DEPLOY / "nats-server.conf").read_text()))
    assert asked == set(machine_environment()) - known | set(unit_environment("nats.service"))
    assert {name for name in asked if name.startswith("NKEY_")} == {f"NKEY_{user.upper()}" for user in USERS}


def test_the_containers_are_told_what_the_units_are() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    told = unit_environment("nats.service").keys() | {"NATS_NODE", "NATS_NAME", "NATS_HOST"}
    journals = []
    for name in NODES:
        assert services[name]["environment"].keys() == told
        assert services[name]["environment"]["NATS_NODE"] == name
        environment = services[name.replace("n", "s")]["environment"]
        assert environment.keys() <= {f"TWINCAST_{each.upper()}" for each in Settings.model_fields}
        journals.append(environment["TWINCAST_JOURNAL"])
    options = unit_environment("twincast.service")["TWINCAST_JOURNAL"]
    for part in ("tls://n1.example.org,n2.example.org,n3.example.org/lab", "replicas=3", "nkey=", "ca="):
        assert all(part in journal for journal in [*journals, options])


def test_the_page_of_nats_clients_shows_these_permissions() -> None:
    def plain(text: str) -> str:
        text = re.sub(r"#.*", "", text)
        return re.sub(r"[\s,]+", " ", re.sub(r"nkey: \S+", "nkey: U", text))

    shown = re.search(r"^authorization \{.*?^\}$", (ROOT / "docs/nats.md").read_text(), re.S | re.M)
    used = re.search(r"^authorization \{.*?^\}$", (DEPLOY / "nats-server.conf").read_text(), re.S | re.M)
    assert shown and used and plain(shown[0]) == plain(used[0])


async def test_a_server_says_what_is_wrong_with_its_nkey_and_no_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unknown, torn = tmp_path / "unknown.nk", tmp_path / "torn.nk"
    unknown.write_bytes(bytes(nkeys.encode_seed(bytes(32), nkeys.PREFIX_BYTE_USER)))
    torn.write_text("SUnothing\n")
    with ExitStack() as stack:
        it = Running(tmp_path, stack)
        it.start("n1", *node(it.made, "n1", it.own("n1")), it.own("n1"))
        eventually(lambda: "Server is ready" in (it.own("n1") / "printed").read_text(), "the node is ready")

        def address(user: str, **options: str) -> NatsAddress:
            where = f"{HOST}:{it.made.clients['n1']}"
            return NatsAddress.parse(re.sub(r"(?<=//)[^/]*", where, it.made.url(user, **options)))

        with pytest.raises(JournalUnusable, match=f"refuses this server: the user in {unknown} must be one"):
            await Link.connect(address("servers", nkey=str(unknown)))
        with pytest.raises(JournalUnusable, match=f"{torn} has no seed of an nkey"):
            await Link.connect(address("servers", nkey=str(torn)))
        with pytest.raises(JournalUnusable, match="nothing, which the URL of the log names, cannot be read"):
            await Link.connect(address("servers", nkey=str(tmp_path / "nothing")))
        link = await Link.connect(address("sensors"))
        with pytest.raises(JournalUnavailable, match="permissions violation for publish"):
            await link.ask("STREAM.INFO.twincast_lab")
        await link.close()
    assert [each.message for each in caplog.records if each.levelno >= logging.WARNING] == []
