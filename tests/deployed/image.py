"""deploy/Dockerfile, built and run by podman in a network and a view of the file system that nobody else has."""

import ssl
from pathlib import Path

import httpx

from tests.credentials import bearer
from tests.deployed.containers import FILE, TLS, environment, has_no_right, import_base, sh
from tests.deployed.system import header_commands, say
from tests.running import eventually
from twincast.client.sync import connect

URL, NAME = "https://localhost", "twin.example.org"


def prove(folder: Path, system: Path) -> None:
    """Prove the image. The caller has made the namespaces: this changes mounts and listens on port 443."""
    env = environment(folder)
    import_base(folder, system, env)
    build, add_key, serve = header_commands(FILE)
    sh(build, env)
    say("ok: the header's command builds it")
    refused = sh("docker run --rm twincast", env, fails=True)
    assert "twincast keys add" in refused and "--tls-cert" in refused
    key = sh(add_key, env)
    container = sh(serve, env)
    try:
        trusting = ssl.create_default_context(cafile=str(TLS / "cert.pem"))
        with httpx.Client(base_url=URL, verify=trusting) as http:
            _serves(http, key)
            assert "compiled" in sh(f"docker logs {container} 2>&1", env)
            _is_shut_in(container, env)
            _takes_keys_beside_it(http, key, add_key, env)
            with connect(URL, token=key, tls=trusting) as client:
                client.publish("lab/lamp", "on")
            sh(f"docker stop {container}", env)
            assert sh(f"docker inspect --format '{{{{.State.ExitCode}}}}' {container}", env) == "0"
            for how in ("rm", "rm --force --time=0"):
                sh(f"docker {how} {container}", env)
                container = sh(serve, env)
                eventually(lambda: _status(http, key) == 200, "a new container answers")
                state = http.get("/api/data", headers=bearer(key)).json()
                assert "lab/lamp" in str(state), state
            say("ok: a new container has what the old one had, stopped or killed")
    except BaseException:
        say(sh(f"docker logs {container} 2>&1", env))
        raise
    finally:
        sh(f"docker rm --force --time=0 {container}", env)


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
    has_no_right(container, env)
    sh(f"docker healthcheck run {container}", env)
    say("ok: it runs as its own user without any right, and its health check finds it")


def _takes_keys_beside_it(http: httpx.Client, key: str, add_key: str, env: dict[str, str]) -> None:
    second = sh(add_key.replace("NAME", "second"), env)
    assert _status(http, second) == 200
    change = add_key.partition(" keys ")[0]
    assert "second" in sh(f"{change} keys list", env)
    sh(f"{change} keys revoke second", env)
    assert (_status(http, second), _status(http, key)) == (401, 200)
    say("ok: a key that a second container makes or revokes counts at once")
