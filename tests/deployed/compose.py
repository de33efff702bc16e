"""deploy/cluster/compose.yaml, run by podman-compose in a network and a file system that nobody else sees."""

import os
import signal
import ssl
import sys
from pathlib import Path
from typing import Any

import httpx

from tests.credentials import bearer
from tests.deployed.containers import TLS, environment, has_no_right, import_base, import_image, process_of, sh
from tests.deployed.counter import Counter
from tests.deployed.machine import DEADLINE_S
from tests.deployed.system import header_commands, run, run_until_done, say
from tests.running import ROOT, eventually

NAME, URL = "twin.example.org", "https://twin.example.org"
NODES, SERVERS = ("n1", "n2", "n3"), ("s1", "s2", "s3")
COMPOSE = "podman-compose==1.6.0"
BUILT_OF = ("twincast", "docs", "deploy", "pyproject.toml", "hatch_build.py", "README.md", "LICENSE")
RUNS_NGINX = 'CMD ["nginx", "-g", "daemon off;"]'
READ_COPY = """
import apsw
log = apsw.Connection("/data/lab.db")
print(*(value for (value,) in log.execute("select value from log where device_id = 'counter' order by seq")))
"""


def install(folder: Path) -> None:
    """Install what runs the file, where there is a network."""
    run([folder / "venv/bin/pip", "install", "--quiet", COMPOSE])


def prove(folder: Path, system: Path) -> None:
    """Prove the file. The caller has made the namespaces: this changes mounts and listens on ports 80 and 443."""
    containers = Containers(folder)
    import_base(folder, system, containers.env)
    import_image(folder, folder / "nginx", "nginx:1", containers.env, "--change", RUNS_NGINX)
    try:
        containers.set_up()
        say("ok: the header's commands build the image, and start three nodes, three servers and nginx")
        for name in (*NODES, *SERVERS):
            has_no_right(containers.named(name), containers.env)
            containers.sh(f"docker healthcheck run {containers.named(name)}")
        say("ok: each runs as its own user without any right, and its health check finds it")
        _loses_nothing(containers)
    except BaseException:
        say(containers.sh("docker compose logs --tail 30 2>&1; docker ps --all"))
        raise
    finally:
        containers.sh("docker compose down --volumes --timeout 0")


class Containers:
    """The services of the file, in a copy of this checkout, and what is asked of them."""

    def __init__(self, folder: Path) -> None:
        self.env = environment(folder, NAME)
        self.env["PATH"] = f"{Path(sys.executable).parent}:{self.env['PATH']}"  # what is asked of `python`, it has
        (folder / "hosts").write_text(f"127.0.0.1 localhost\n127.0.0.1 {NAME}\n")
        run(["mount", "--bind", folder / "hosts", "/etc/hosts"])
        self._checkout = folder / "checkout"
        self._checkout.mkdir()
        for name in BUILT_OF:
            run(["cp", "-a", ROOT / name, self._checkout])
        self._trusting = ssl.create_default_context(cafile=TLS / "cert.pem")
        self.key = self._admin = ""

    def sh(self, text: str) -> str:
        return sh(text, self.env, folder=self._checkout / "deploy/cluster")

    def set_up(self) -> None:
        """Do as the head of the file says."""
        prepare, own, start_nodes, make_key, start = header_commands(ROOT / "deploy/cluster/compose.yaml")
        for command in (prepare, own, start_nodes):
            self.sh(command)
        self.key = run_until_done(lambda: self.sh(make_key), "a key is made").splitlines()[-1]
        self._admin = self.sh(make_key.replace("NAME --may publish,read", "admin --may admin,read")).splitlines()[-1]
        self.sh(start)
        self.serve()

    def serve(self) -> None:
        """Wait until nginx reaches three servers that know each other."""
        eventually(lambda: len(self._known()) == len(SERVERS), "the servers know each other", DEADLINE_S)

    def _known(self) -> list[Any]:
        try:
            servers: list[Any] = self.get("/api/cluster")["servers"]
        except httpx.HTTPError:
            return []
        return servers

    def get(self, path: str) -> Any:
        answer = httpx.get(URL + path, headers=bearer(self._admin), verify=self._trusting, timeout=30)
        return answer.raise_for_status().json()

    def seq(self) -> int:
        """Return the position of the counter's newest reading, 0 if it cannot be told now."""
        try:
            return int(self.get("/api/data/counter")["seq"])
        except httpx.HTTPError:
            return 0

    def goes_on(self) -> None:
        before = eventually(self.seq, "it can be told", DEADLINE_S)
        eventually(lambda: self.seq() > before, "readings come", DEADLINE_S)

    def named(self, service: str) -> str:
        """Return the name of a service's container."""
        return self.sh(f"docker ps --all --format '{{{{.Names}}}}' --filter label=com.docker.compose.service={service}")

    def comes_back(self, service: str) -> None:
        """Kill a service's first process, and wait until there is another."""
        name = self.named(service)
        killed = process_of(name, self.env)
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: process_of(name, self.env) not in {0, killed}, f"{service} is started again", DEADLINE_S)


def _loses_nothing(containers: Containers) -> None:
    counter = Counter(URL, containers.key, TLS / "cert.pem", containers._checkout / "sent")
    try:
        containers.goes_on()
        for service in (*SERVERS, *NODES):
            containers.comes_back(service)
            containers.goes_on()
        count = counter.finish()
    finally:
        counter.kill()
    containers.sh("docker compose down")
    containers.sh("docker compose up -d")
    containers.serve()
    expected = " ".join(map(str, range(1, count + 1)))
    for service in SERVERS:
        read = f"docker exec -i {containers.named(service)} python - <<'END'\n{READ_COPY}END"
        eventually(lambda read=read: containers.sh(read) == expected, f"{service} has each reading once", DEADLINE_S)  # type: ignore[misc]
    say(f"ok: {count} readings are there once each and in order, although each container was killed, and all went down")
