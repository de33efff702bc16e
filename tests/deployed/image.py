"""deploy/Dockerfile, built and run by podman in a network and a view of the file system that nobody else has."""

import os
import shlex
import ssl
from pathlib import Path

import httpx

from tests.credentials import bearer, certificate
from tests.deployed.system import header_commands, run, say
from tests.running import ROOT, eventually
from twincast.client.sync import connect

FILE = ROOT / "deploy/Dockerfile"
URL, NAME = "https://localhost", "twin.example.org"
USER = 10001
TLS = Path("/etc/ssl/twincast")
# Neither control groups nor limits are what is proved; not every machine lets root set them.
DOCKER = """#!/bin/sh
command=$1; shift
case $command in
build) set -- --pull=never --isolation=chroot --format=docker "$@" ;;
run) set -- --pull=never --cgroups=disabled --ulimit=nofile=1024:1024 --ulimit=nproc=1024:1024 "$@" ;;
esac
exec podman --root {folder}/store --runroot {folder}/running "$command" "$@"
"""


def prove(folder: Path, system: Path) -> None:
    """Prove the image. The caller has made the namespaces: this changes mounts and listens on port 443."""
    env = _environment(folder)
    bases = {line.split()[1] for line in FILE.read_text().splitlines() if line.startswith("FROM ")}
    (base,) = bases
    run(["tar", "--directory", system, "--create", "--file", folder / "base.tar", "."])
    run(["docker", "import", folder / "base.tar", f"docker.io/library/{base}"], env=env)
    build, add_key, serve = header_commands(FILE)
    _sh(build, env)
    say("ok: the header's command builds it")
    refused = _sh("docker run --rm twincast", env, fails=True)
    assert "twincast keys add" in refused and "--tls-cert" in refused
    key = _sh(add_key, env)
    container = _sh(serve, env)
    try:
        trusting = ssl.create_default_context(cafile=str(TLS / "cert.pem"))
        with httpx.Client(base_url=URL, verify=trusting) as http:
            _serves(http, key)
            _is_shut_in(container, env)
            _takes_keys_beside_it(http, key, add_key, env)
            with connect(URL, token=key, tls=trusting) as client:
                client.publish("lab/lamp", "on")
            _sh(f"docker stop {container}", env)
            assert _sh(f"docker inspect --format '{{{{.State.ExitCode}}}}' {container}", env) == "0"
            for how in ("rm", "rm --force --time=0"):
                _sh(f"docker {how} {container}", env)
                container = _sh(serve, env)
                eventually(lambda: _status(http, key) == 200, "a new container answers")
                state = http.get("/api/data", headers=bearer(key)).json()
                assert "lab/lamp" in str(state), state
            say("ok: a new container has what the old one had, stopped or killed")
    except BaseException:
        say(_sh(f"docker logs {container} 2>&1", env))
        raise
    finally:
        _sh(f"docker rm --force --time=0 {container}", env)


def _environment(folder: Path) -> dict[str, str]:
    run(["ip", "link", "set", "lo", "up"])
    for hidden in ("/run", "/etc/ssl"):
        run(["mount", "-t", "tmpfs", "none", hidden])
    if not Path("/sys/fs/cgroup/cgroup.controllers").exists():
        run(["mount", "-t", "cgroup2", "none", "/sys/fs/cgroup"])  # crun knows no mixture of both versions
    TLS.mkdir()
    _, key = certificate(TLS)
    key.chmod(0o600)
    os.chown(key, USER, USER)
    docker = folder / "bin/docker"
    docker.parent.mkdir()
    docker.write_text(DOCKER.format(folder=shlex.quote(str(folder))))
    docker.chmod(0o755)
    os.environ["PATH"] = f"{docker.parent}:{os.environ['PATH']}"
    return dict(os.environ)


def _sh(text: str, env: dict[str, str], *, fails: bool = False) -> str:
    return run(["sh", "-c", text], env=env, fails=fails).strip()


def _status(http: httpx.Client, key: str, host: str = "localhost") -> int:
    try:
        return http.get("/api/status", headers={**bearer(key), "Host": host}).status_code
    except httpx.TransportError:
        return 0


def _serves(http: httpx.Client, key: str) -> None:
    eventually(lambda: _status(http, key) == 200, "the container answers over TLS")
    assert _status(http, "wrong") == 401
    assert _status(http, key, NAME) == 200
    assert _status(http, key, "other.example.org") not in {0, 200}
    say("ok: it serves over TLS, to who has the key, under its name")


def _is_shut_in(container: str, env: dict[str, str]) -> None:
    pid = _sh(f"docker inspect --format '{{{{.State.Pid}}}}' {container}", env)
    told = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    assert told["Uid"].split() == told["Gid"].split() == [str(USER)] * 4
    assert (int(told["CapEff"], 16), told["NoNewPrivs"]) == (0, "1")
    _sh(f"docker healthcheck run {container}", env)
    say("ok: it runs as its own user without any right, and its health check finds it")


def _takes_keys_beside_it(http: httpx.Client, key: str, add_key: str, env: dict[str, str]) -> None:
    second = _sh(add_key.replace("NAME", "second"), env)
    assert _status(http, second) == 200
    change = add_key.partition(" keys ")[0]
    assert "second" in _sh(f"{change} keys list", env)
    _sh(f"{change} keys revoke second", env)
    assert (_status(http, second), _status(http, key)) == (401, 200)
    say("ok: a key that a second container makes or revokes counts at once")
