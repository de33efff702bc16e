"""What a NATS server of our own is told: loopback, a token, its folder, and a disk that is synced.

The words are those of https://docs.nats.io/running-a-nats-service/configuration
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from twincast.machine import OWNER_ALONE

HOST = "127.0.0.1"
MAX_PAYLOAD_BYTES = 8 << 20
"""A body of 4 MiB is one message; above 8 MiB NATS itself warns."""
FILE_STORE = "1P"
"""JetStream would stop at three quarters of what the disk has free when it starts; here a full disk says so itself."""
MEMORY_STORE = "1G"
"""For consumers, which are kept in memory; it is a bound, not taken at the start."""


class ClusterBlock(NamedTuple):
    """What makes a node one of several."""

    name: str
    """Of the NATS cluster; the same for all nodes."""
    routes: Sequence[str]
    """The other nodes, each as `nats://HOST:PORT`."""
    port: int = 0
    """Where the other nodes reach this one, on loopback; 0 for any that is free."""
    advertise: str = ""
    """As which `HOST:PORT` other nodes tell of this one; empty: as it is."""


class Configuration(NamedTuple):
    """What does not change from one start of a server to the next."""

    name: str
    """Of the server, in its cluster and its log."""
    sync_interval: str
    """When JetStream syncs: "always", or a time like "2m"."""
    cluster: ClusterBlock | None
    extra: str
    """Further lines."""

    def text(self, folder: Path, port: int, token: str | None) -> str:
        """Return the whole file.

        Args:
            folder: where the server writes everything.
            port: where it listens; 0 for any that is free.
            token: what clients have to give; None for nothing.
        """
        lines = [
            f"host: {json.dumps(HOST)}",
            f"port: {port or -1}",
            f"ports_file_dir: {json.dumps(str(folder))}",
            f"server_name: {json.dumps(self.name)}",
            f"log_file: {json.dumps(str(folder / 'nats.log'))}",
            "logfile_size_limit: 8MB",
            "logfile_max_num: 2",
            f"max_payload: {MAX_PAYLOAD_BYTES}",
            "jetstream {",
            f"  store_dir: {json.dumps(str(folder))}",  # it makes the folder `jetstream` in it
            f"  sync_interval: {json.dumps(self.sync_interval)}",
            f"  max_file_store: {FILE_STORE}",
            f"  max_memory_store: {MEMORY_STORE}",
            "}",
        ]
        if token is not None:
            lines.append(f"authorization {{ token: {json.dumps(token)} }}")
        if self.cluster is not None:
            lines += _cluster_lines(self.cluster)
        return "\n".join([*lines, self.extra, ""])


def _cluster_lines(cluster: ClusterBlock) -> list[str]:
    return [
        "cluster {",
        f"  name: {json.dumps(cluster.name)}",
        f"  host: {json.dumps(HOST)}",
        f"  port: {cluster.port or -1}",
        f"  routes: {json.dumps(list(cluster.routes))}",
        *([f"  advertise: {json.dumps(cluster.advertise)}"] if cluster.advertise else []),
        "  no_advertise: true",  # clients have the addresses that they were given, and no others
        "}",
    ]


def write_privately(path: Path, text: str) -> None:
    """Replace a file by one that only its owner reads, at once: a crash leaves the old one or the new one."""
    new = path.with_name(f"{path.name}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, OWNER_ALONE)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    os.replace(new, path)
