"""API keys as they are made."""

import pytest

from tests.credentials import NOW_UTC
from twincast.access.keys import digest_of, make_key
from twincast.core.rights import Rights
from twincast.errors import ValidationFailed
from twincast.wire.messages import encode

READ = Rights.of({"read": ["lab/*"]})


def test_of_a_key_its_secret_is_not_kept() -> None:
    key, secret = make_key("lab/gateway", READ, now_utc=NOW_UTC, rate_per_s=5, expires_s=1)
    assert secret.startswith(f"twc_{key.id}_")
    assert len(secret) >= 12 + 43  # 256 random bits
    assert key.digest == digest_of(secret)
    assert secret.removeprefix(f"twc_{key.id}_").encode() not in encode(key)


def test_no_two_keys_are_alike() -> None:
    made = [make_key("a", READ, now_utc=NOW_UTC, rate_per_s=None, expires_s=None) for _ in range(100)]
    assert len({key.id for key, _ in made}) == len({secret for _, secret in made}) == 100


@pytest.mark.parametrize("name", ["", "-a", "a b", "a\n", "a" * 65, "\u202ea"])
def test_a_name_that_could_mislead_in_a_list_is_refused(name: str) -> None:
    with pytest.raises(ValidationFailed, match="name"):
        make_key(name, READ, now_utc=NOW_UTC, rate_per_s=None, expires_s=None)


def test_a_key_needs_a_right_and_a_rate_above_nothing() -> None:
    with pytest.raises(ValidationFailed, match="without a right"):
        make_key("a", Rights(), now_utc=NOW_UTC, rate_per_s=None, expires_s=None)
    for rate in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValidationFailed, match="rate"):
            make_key("a", READ, now_utc=NOW_UTC, rate_per_s=rate, expires_s=None)
