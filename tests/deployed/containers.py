"""podman in the place of docker, in a network and a view of the file system that nobody else has."""

import os
import shlex
from pathlib import Path

from tests.credentials import certificate
from tests.deployed.system import run
from tests.running import ROOT

FILE = ROOT / "deploy/Dockerfile"
USER = 10001
TLS = Path("/etc/ssl/twincast")
# Neither control groups nor limits are what is proved; not every machine lets root set them. What podman, unlike
# docker, lets a container write that is read-only, is taken away.
DOCKER = """#!/bin/sh
command=$1; shift
case $command in
build) set -- --pull=never --isolation=chroot --format=docker "$@" ;;
run | create) set -- --pull=never --cgroups=disabled --read-only-tmpfs=false \\
    --ulimit=nofile=1024:1024 --ulimit=nproc=1024:1024 "$@" ;;
compose) exec {folder}/venv/bin/podman-compose --podman-path="$0" --in-pod=false "$@" ;;
esac
exec podman --root {folder}/store --runroot {folder}/running "$command" "$@"
"""


def environment(folder: Path, name: str = "localhost") -> dict[str, str]:
    """Return the environment in which `docker` is podman, with a certificate where it is mounted from.

    The caller has made the namespaces: this changes mounts.
    """
    run(["ip", "link", "set", "lo", "up"])
    for hidden in ("/run", "/etc/ssl"):
        run(["mount", "-t", "tmpfs", "none", hidden])
    if not Path("/sys/fs/cgroup/cgroup.controllers").exists():
        run(["mount", "-t", "cgroup2", "none", "/sys/fs/cgroup"])  # crun knows no mixture of both versions
    TLS.mkdir()
    _, key = certificate(TLS, name)
    key.chmod(0o600)
    os.chown(key, USER, USER)
    docker = folder / "bin/docker"
    docker.parent.mkdir(exist_ok=True)
    docker.write_text(DOCKER.format(folder=shlex.quote(str(folder))))
    docker.chmod(0o755)
    os.environ["PATH"] = f"{docker.parent}:{os.environ['PATH']}"
    return dict(os.environ)


def import_base(folder: Path, system: Path, env: dict[str, str]) -> None:
    """Have a Debian be what the Dockerfile begins with."""
    (base,) = {line.split()[1] for line in FILE.read_text().splitlines() if line.startswith("FROM ")}
    import_image(folder, system, base, env)


def import_image(folder: Path, system: Path, name: str, env: dict[str, str], *changes: str) -> None:
    """Make an image of a Debian."""
    run(["tar", "--directory", system, "--create", "--file", folder / "image.tar", "."])
    run(["docker", "import", *changes, folder / "image.tar", f"docker.io/library/{name}"], env=env)
    (folder / "image.tar").unlink()


def sh(text: str, env: dict[str, str], *, fails: bool = False, folder: Path = ROOT) -> str:
    """Run what a user would type, in a folder."""
    return run(["sh", "-c", text], env=env, fails=fails, folder=folder).strip()


def has_no_right(container: str, env: dict[str, str]) -> None:
    """Prove that a container's first process is of the image's own user, and has no right of root."""
    pid = process_of(container, env)
    told = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    assert told["Uid"].split() == told["Gid"].split() == [str(USER)] * 4
    assert (int(told["CapEff"], 16), told["NoNewPrivs"]) == (0, "1")


def process_of(container: str, env: dict[str, str]) -> int:
    """Return the first process of a container, 0 if it does not run."""
    return int(sh(f"docker inspect --format '{{{{.State.Pid}}}}' {container}", env))
