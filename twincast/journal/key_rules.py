"""What holds of keys and pairing codes in every kind of journal that keeps them, and how it is said; pure."""

from collections.abc import Iterable, Mapping, Sequence

from twincast.core.keys import Key
from twincast.errors import CredentialExpired, Unauthenticated, ValidationFailed


def refuse_name_in_use(keys: Iterable[Key], name: str) -> None:
    """Raise ValidationFailed if a key that is not revoked has a name."""
    if any(other.name == name and other.revoked_at_utc is None for other in keys):
        raise ValidationFailed(f"there is a key named {name!r} already; `twincast keys revoke` ends it")


def key_in_use(keys: Iterable[Key], name_or_id: str) -> Key:
    """Return the key that is meant.

    Raises:
        ValidationFailed: no key that is in use has that name or id.
    """
    for key in keys:
        if name_or_id in {key.id, f"key:{key.id}", key.name} and key.revoked_at_utc is None:
            return key
    raise ValidationFailed(f"no key in use has the name or id {name_or_id[:80]!r}; `twincast keys list` shows them")


def refuse_many_codes(waiting: int, *, waiting_max: int, life_s: int) -> None:
    """Raise ValidationFailed if as many codes wait as may."""
    if waiting >= waiting_max:
        raise ValidationFailed(f"{waiting_max} codes wait to be used; each is good for {life_s // 60} minutes")


def refuse_code(until_s: int | None, now_s: float, *, is_used: bool, life_s: int) -> None:
    """Refuse a code that is not good.

    Args:
        until_s: when it expires, in seconds since 1970; None if there is no such code.
        now_s: seconds since 1970.
        is_used: whether it was used.
        life_s: for how long a code is good at most.

    Raises:
        Unauthenticated: there is no such code.
        CredentialExpired: it was used, or has expired.
    """
    if until_s is None:
        raise Unauthenticated("this code is not known here; `twincast pair NAME --may publish` shows one")
    if is_used:
        raise CredentialExpired("this code was used already, and is good once; `twincast pair` shows another")
    if not 0 < until_s - now_s <= life_s:  # a clock that was set back makes none live longer
        raise CredentialExpired(f"this code was good for {life_s // 60} minutes; `twincast pair` shows another")


def said_of(grants: Mapping[str, Sequence[str]]) -> str:
    """Return grants as the audit trail has them."""
    return "; ".join(f"{action} {' '.join(patterns)}" for action, patterns in sorted(grants.items()))
