"""The files in deploy/, run for real: nginx and Caddy in front of a server, with TLS, and everything through them."""

import json
import os
import re
import shlex
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlencode

import httpx
import pytest

from tests import warm
from tests.conftest import StartServer
from tests.credentials import add_key, bearer, certificate
from tests.running import ROOT, eventually, free_port
from tests.tools import program
from twincast.client.sync import connect
from twincast.settings import Settings
from twincast.testing import Server

DEPLOY = ROOT / "deploy"
NAME = "localhost"


@contextmanager
def running(command: list[str], folder: Path) -> Iterator[None]:
    """Run a proxy in a folder of its own, until the context ends."""
    env = {**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    printed = (folder / "printed").open("w")
    process = warm.Popen(command, cwd=folder, env=env, stdout=printed, stderr=subprocess.STDOUT)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)
        printed.close()


def needed(name: str) -> str:
    return program(name, folders=("/usr/sbin",))


def nginx(folder: Path, cert: Path, key: Path, port: int, server_port: int) -> list[str]:
    text = (DEPLOY / "nginx.conf").read_text()
    text = re.sub(r"listen 80;", f"listen 127.0.0.1:{free_port()};", text)
    text = re.sub(r"listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;", text)
    text = text.replace("/etc/ssl/twincast/cert.pem", str(cert)).replace("/etc/ssl/twincast/key.pem", str(key))
    text = text.replace("twin.example.org", NAME).replace("127.0.0.1:8000", f"127.0.0.1:{server_port}")
    (folder / "site.conf").write_text(text)
    paths = "".join(
        f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log stderr; worker_processes 1; events {{}}"
        f" http {{ access_log off; {paths} include {folder}/site.conf; }}"
    )
    warm.run([needed("nginx"), "-t", "-c", str(folder / "nginx.conf")], check=True, capture_output=True)
    return [needed("nginx"), "-c", str(folder / "nginx.conf"), "-e", "stderr"]


def caddy(folder: Path, cert: Path, key: Path, port: int, server_port: int) -> list[str]:
    text = (DEPLOY / "Caddyfile").read_text()
    # The certificate is our own, for there is nobody here who would sign one.
    text = text.replace("twin.example.org {", f"https://{NAME}:{port} {{\n\ttls {cert} {key}")
    text = text.replace("127.0.0.1:8000", f"127.0.0.1:{server_port}")
    text = text.replace("{\n\tgrace_period", "{\n\tadmin off\n\tauto_https disable_redirects\n\tgrace_period")
    (folder / "Caddyfile").write_text(text)
    return [needed("caddy"), "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


@pytest.mark.parametrize("proxy", [nginx, caddy])
def test_everything_goes_through_a_proxy(
    proxy: Callable[..., list[str]], server_process: StartServer, tmp_path: Path
) -> None:
    path = tmp_path / "journal.db"
    token = add_key(path, publish=["*"], read=["*"], command=["*"], admin=["*"])
    server = server_process(f"sqlite:{path}", TWINCAST_BEHIND_TLS_PROXY="true")
    folder = tmp_path / "proxy"
    folder.mkdir()
    cert, key = certificate(tmp_path)
    port = free_port()
    trusting = ssl.create_default_context(cafile=str(cert))
    url = f"https://{NAME}:{port}"
    with (
        running(proxy(folder, cert, key, port, server.port), folder),
        httpx.Client(base_url=url, verify=trusting, headers=bearer(token)) as http,
    ):
        eventually(lambda: _answers(http), f"{proxy.__name__} is up")
        assert http.get("/dashboard").headers["strict-transport-security"] == "max-age=31536000"
        assert http.get("/api/status", headers={"Authorization": "Bearer wrong"}).status_code == 401
        with connect(url, token=token, tls=trusting) as client:  # a WebSocket, through the proxy
            client.reached(client.publish("lab/lamp", 1))
        with http.stream("GET", "/api/events", headers={"Accept": "text/event-stream"}) as stream:
            lines = (line for line in stream.iter_lines() if line.startswith("data:"))
            assert json.loads(next(lines)[5:])["data_snapshot"].keys() == {"lab/lamp"}
            http.post("/api/data", json={"device_id": "lab/door", "value": 2}).raise_for_status()
            assert json.loads(next(lines)[5:])["device_id"] == "lab/door"  # at once, not when a page is full
        _delete_by_odd_names(http)
        assert http.post("/api/data", content=b"x" * (5 << 20)).status_code == 413
        http.post("/api/control", json={"target": "lab/fan", "command": "on"}, headers={"X-Forwarded-For": "192.0.2.1"})
        (record,) = [each for each in http.get("/api/audit").json()["records"] if each["action"] == "command"]
        assert record["address"] == "127.0.0.1"  # what the client said of itself is not believed


def _delete_by_odd_names(http: httpx.Client) -> None:
    """Delete devices whose names a proxy may take for something else. It must pass a path on as it came."""
    names = ["lab/lamp", "a b", "100%", "%2F", "é", "a?b", "a//b", "lab/../lamp"]
    paths = [*((name, f"/api/data/{quote(name, safe='')}") for name in names)]
    paths += [(name, f"/api/data?{urlencode({'device_id': name})}") for name in (*names, "..", "../../../..", ".")]
    for name, path in paths:
        http.post("/api/data", json={"device_id": name, "value": 1}).raise_for_status()
        answer = http.delete(path)
        assert (answer.status_code, answer.json().get("event", {}).get("device_id")) == (200, name), path
        assert http.delete(path).status_code == 404


@pytest.mark.parametrize(
    ("file", "line"), [("nginx.conf", r"^\s+keepalive_timeout (\d+)s;"), ("Caddyfile", r"^\s+keepalive (\d+)s")]
)
def test_a_proxy_lets_go_of_a_connection_before_the_server_does(file: str, line: str) -> None:
    (seconds,) = re.findall(line, (DEPLOY / file).read_text(), re.M)
    assert int(seconds) < Settings().keep_alive_timeout_s


def _answers(http: httpx.Client) -> bool:
    try:
        return http.get("/api/status").is_success
    except httpx.TransportError:
        return False


def test_the_unit_and_the_image_name_settings_that_exist() -> None:
    known = {f"TWINCAST_{name.upper()}" for name in Settings.model_fields} | {"TWINCAST_COMPILE"}  # of the build
    for file in ("twincast.service", "Dockerfile"):
        text = (DEPLOY / file).read_text()
        assert set(re.findall(r"TWINCAST_[A-Z_]+", text)) <= known


def unit_settings(name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", (DEPLOY / "twincast.service").read_text(), re.M)


def image_environment() -> dict[str, str]:
    lines = re.search(r"^ENV (.*?)^EXPOSE", (DEPLOY / "Dockerfile").read_text(), re.S | re.M)
    assert lines is not None
    return dict(re.findall(r"(TWINCAST_\w+)=(\S+)", lines[1]))


def unit_environment() -> dict[str, str]:
    # systemd takes quotes as a shell does: inside a word they are eaten.
    words = [word for line in unit_settings("Environment") for word in shlex.split(line)]
    return dict(word.split("=", 1) for word in words)


@pytest.mark.parametrize(
    ("environment", "missing"),
    [(image_environment, ["twincast keys add", "--tls-cert"]), (unit_environment, ["twincast keys add"])],
)
def test_what_is_deployed_is_refused_until_there_is_a_key(
    environment: Callable[[], dict[str, str]], missing: list[str], tmp_path: Path
) -> None:
    env = {**os.environ, **environment(), "TWINCAST_JOURNAL": f"sqlite:{tmp_path / 'journal.db'}"}
    command = [sys.executable, "-m", "twincast", "serve"]
    result = warm.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert all(each in result.stderr for each in missing)


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    text = (DEPLOY / "twincast.service").read_text()
    unit = tmp_path / "twincast.service"
    unit.write_text(text.replace("/opt/twincast/bin/twincast serve", "/bin/true"))
    assert analyze("verify", "--man=no", str(unit)) == (0, "")


def test_the_unit_shuts_the_server_in() -> None:
    # 1.2 is what it has. Most of the rest is that it uses the network, as a server must.
    status, printed = analyze("security", "--offline=true", "--threshold=12", str(DEPLOY / "twincast.service"))
    assert status == 0, printed


def test_a_key_is_made_as_the_unit_serves() -> None:
    # systemd-run must share the unit's user and folder, and may not open either to others.
    header = (DEPLOY / "twincast.service").read_text().partition("[Unit]")[0]
    properties = re.findall(r"-p (\w+)=(\S+)", header)
    assert {"DynamicUser", "User", "UMask", "StateDirectory", "StateDirectoryMode"} <= {name for name, _ in properties}
    for name, value in properties:
        assert unit_settings(name) == [value]


def analyze(*words: str) -> tuple[int, str]:
    result = warm.run([needed("systemd-analyze"), *words], capture_output=True, text=True, timeout=60, check=False)
    return result.returncode, result.stdout + result.stderr


def test_the_image_asks_its_server_whether_it_answers(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    add_key(path, read=["*"])
    cert, key = certificate(tmp_path)
    with Server(f"sqlite:{path}") as server:
        assert healthcheck(server.port) == 0
    assert healthcheck(server.port) == 1
    with Server(f"sqlite:{path}", tls_cert=str(cert), tls_key=str(key)) as server:
        assert healthcheck(server.port) == 0


def healthcheck(port: int) -> int:
    env = {**os.environ, "TWINCAST_PORT": str(port)}
    return warm.run([sys.executable, DEPLOY / "healthcheck.py"], env=env, timeout=60, check=False).returncode
