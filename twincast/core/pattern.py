"""Device patterns: `*` stands for any characters, also none, also `/`; everything else for itself."""

from collections.abc import Iterable

from twincast.core.values import check_unicode
from twincast.errors import ValidationFailed

PATTERN_MAX_CHARS = 256
KNOWN_MAX = 1_000
"""How many names an answer is remembered for: a client sends the same few again and again."""


class Pattern:
    r"""Which names are selected: `lab/*`, `*/door`, or one exact name. `\*` is a star, `\\` a backslash.

    Matching takes time proportional to the name, whatever the pattern; a regular expression would not promise that.
    """

    __slots__ = ("_head", "_inner", "_min_chars", "_tail", "exact")

    def __init__(self, text: str) -> None:
        """Read a pattern.

        Raises:
            ValidationFailed: empty, too long, with a lone surrogate, or a backslash before something else than `*` and
                itself.
        """
        if not 1 <= len(text) <= PATTERN_MAX_CHARS:
            raise ValidationFailed(f"a pattern takes 1 to {PATTERN_MAX_CHARS} characters; this one has {len(text)}")
        check_unicode(text, "a pattern")
        parts = _parts(text)
        self.exact: str | None = parts[0] if len(parts) == 1 else None
        """The one name that is selected; None if there may be many."""
        self._head, *self._inner, self._tail = parts if len(parts) > 1 else (*parts, "")
        self._min_chars = sum(map(len, parts))

    def matches(self, name: str) -> bool:
        """Whether a name is selected; the pattern must cover all of it."""
        if self.exact is not None:
            return name == self.exact
        if len(name) < self._min_chars or not name.startswith(self._head) or not name.endswith(self._tail):
            return False
        at, end = len(self._head), len(name) - len(self._tail)
        for part in self._inner:
            # The leftmost place is always right: it leaves the most for the parts that follow.
            at = name.find(part, at, end)
            if at < 0:
                return False
            at += len(part)
        return True


class Names:
    """The names that any of some patterns selects."""

    __slots__ = ("_known", "_stars", "exact", "is_all")

    def __init__(self, patterns: Iterable[str]) -> None:
        """Read the patterns.

        Raises:
            ValidationFailed: one of them cannot be.
        """
        read = {text: Pattern(text) for text in patterns}
        self.is_all = "*" in read
        """Whether every name is selected."""
        self.exact = frozenset(pattern.exact for pattern in read.values() if pattern.exact is not None)
        """The names that are selected by their whole text."""
        self._known: dict[str, bool] = {}
        self._stars = [pattern for pattern in read.values() if pattern.exact is None]

    @property
    def is_listed(self) -> bool:
        """Whether `exact` is all that is selected."""
        return not self._stars

    def has(self, name: str) -> bool:
        """Whether a name is selected."""
        if self.is_all or name in self.exact:
            return True
        known = self._known.get(name)
        if known is None:
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            known = self._known[name] = any(pattern.matches(name) for pattern in self._stars)
        return known


def _parts(text: str) -> list[str]:
    """Return what stands between the stars."""
    parts = [""]
    chars = iter(text)
    for char in chars:
        if char == "*":
            parts.append("")
        elif char == "\\":
            escaped = next(chars, "")
            if escaped not in {"*", "\\"}:
                raise ValidationFailed(f"in a pattern, \\* is a star and \\\\ a backslash; \\{escaped} is nothing")
            parts[-1] += escaped
        else:
            parts[-1] += char
    return parts
