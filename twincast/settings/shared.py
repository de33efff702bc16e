"""Which settings should be the same on all servers of one log: a digest of them, which they tell each other."""

import json
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from twincast.settings import Settings

SHARED = (
    *("anonymous", "jwt_issuer", "jwt_audience", "jwt_algorithm", "nats_key"),
    *("address_connections_max", "identity_connections_max", "unauthenticated_max"),
    *("rate_updates_per_s", "failed_logins_per_minute"),
    *("message_max_bytes", "value_max_bytes", "body_max_bytes", "request_max_updates"),
    *("devices_max", "state_max_bytes", "identity_state_max_bytes", "resume_max_entries"),
)
"""Who may come in, how much they may send, and how much there may be."""
FILES = ("jwt_jwks", "jwt_key")
"""Of these the text counts if it is an address, and the file if there is one: it may lie elsewhere on each machine."""
DIGEST_CHARACTERS = 16


def digest_of(settings: Settings) -> str:
    """Return a short digest of the settings that should be the same on all servers. None of them is a secret."""
    told: dict[str, Any] = {name: getattr(settings, name) for name in SHARED}
    told |= {name: _content(getattr(settings, name)) for name in FILES}
    return sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:DIGEST_CHARACTERS]


def _content(place: str | None) -> str | None:
    if place is None or place.startswith("https:"):
        return place
    with suppress(OSError):
        return sha256(Path(place).read_bytes()).hexdigest()
    return place
