"""Who may do what: the one place where it is decided.

A right is an action on the devices that a pattern selects. Every path asks `Principal.may` or, for what it reads,
narrows a subscription to `Principal.readable`; no other code compares patterns with actions.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, get_args

from twincast.core.names import listed
from twincast.core.pattern import PatternSet, pattern_set
from twincast.core.subscription import EVERYWHERE
from twincast.errors import NotPermitted, ValidationFailed

Action = Literal["publish", "read", "command", "admin"]
ACTIONS: tuple[Action, ...] = get_args(Action)
PATTERNS_MAX = 1_000
"""How many patterns one identity may have for an action: as many as a subscription takes."""


@dataclass(frozen=True)
class Rights:
    """For each action, the patterns of the devices that it is allowed on."""

    publish: frozenset[str] = frozenset()
    read: frozenset[str] = frozenset()
    command: frozenset[str] = frozenset()
    admin: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Check the patterns.

        Raises:
            ValidationFailed: one of them cannot be, or they are too many.
        """
        for action in ACTIONS:
            patterns = getattr(self, action)
            if len(patterns) > PATTERNS_MAX:
                raise ValidationFailed(f"an action takes {PATTERNS_MAX} patterns; {action} has {len(patterns)}")
            pattern_set(patterns)

    @classmethod
    def of(cls, grants: Mapping[str, str | Iterable[str]]) -> "Rights":
        """Return rights from patterns by action; a text alone is one pattern.

        Raises:
            ValidationFailed: an action that does not exist, or a pattern that cannot be.
        """
        if unknown := sorted(set(grants) - set(ACTIONS)):
            raise ValidationFailed(f"the rights are {', '.join(ACTIONS)}; not {unknown[0][:40]!r}")
        return cls(**{action: frozenset(listed(patterns)) for action, patterns in grants.items()})

    def described(self) -> dict[str, list[str]]:
        """Return them as `of` takes them, without what is not allowed at all."""
        return {action: sorted(patterns) for action in ACTIONS if (patterns := getattr(self, action))}

    @cached_property
    def _names(self) -> dict[Action, PatternSet]:
        return {action: pattern_set(getattr(self, action)) for action in ACTIONS}

    def allow(self, action: Action, name: str) -> bool:
        """Whether an action is allowed on a device."""
        return self._names[action].has(name)

    def allow_everywhere(self, action: Action) -> bool:
        """Whether an action is allowed on `*`."""
        return self._names[action].is_all


EVERY_RIGHT = Rights(EVERYWHERE, EVERYWHERE, EVERYWHERE, EVERYWHERE)


class Rate(NamedTuple):
    """How many a second in the long run, and how many at once."""

    per_s: float
    burst: float


@dataclass(frozen=True)
class Principal:
    """Whoever is on the other side of a connection, and what it may do.

    Args:
        id: `anonymous`, `key:ID` or `jwt:SUBJECT`. Safe to log; it is never a credential.
        rights: what it may do.
        expires_s: until when, in seconds since 1970; None for no end.
        rate: how many updates it may send; None for as many as it can.
    """

    id: str
    rights: Rights = EVERY_RIGHT
    expires_s: float | None = None
    rate: Rate | None = None

    @cached_property
    def is_unbounded(self) -> bool:
        """Whether everything is allowed, so that nothing needs to be asked."""
        return self.rights == EVERY_RIGHT and self.rate is None

    @cached_property
    def identity(self) -> str:
        """Whose idempotency keys and whose share of the state count; empty for principals without an identity."""
        return "" if self.id == "anonymous" else self.id

    @property
    def readable(self) -> frozenset[str]:
        """The patterns of the devices that exist for it."""
        return self.rights.read

    def may(self, action: Action, name: str) -> bool:
        """Whether it may do something to a device."""
        return self.rights.allow(action, name)

    def may_at_all(self, action: Action) -> bool:
        """Whether there can be a device that it may do something to."""
        return bool(getattr(self.rights, action))

    def may_everywhere(self, action: Action) -> bool:
        """Whether it may do something to every device, and so to what is not one device's, as the keys are."""
        return self.rights.allow_everywhere(action)

    def require(self, action: Action, name: str) -> None:
        """Let an action pass or not.

        Raises:
            NotPermitted: it may not. The text holds nothing that the client did not say itself.
        """
        if not self.may(action, name):
            raise NotPermitted(f"{self.id} has no right to {action} {name[:128]!r}")

    def require_at_all(self, action: Action) -> None:
        """Let a call pass or not that is about many devices.

        Raises:
            NotPermitted: it may do this to none.
        """
        if not self.may_at_all(action):
            raise NotPermitted(f"{self.id} has no right to {action}")


ANYONE = Principal("anonymous")
"""Everybody, on a server that asks for no login."""
NOBODY = Principal("anonymous", Rights())
"""The principal of calls that need no credential and no right, such as the one that exchanges a pairing code."""
