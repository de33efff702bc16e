"""What a request's Accept header prefers (RFC 9110, 12.5.1)."""

from collections.abc import Iterable, Mapping, Sequence


def weights_of(accept: str) -> Mapping[str, float]:
    """Return the types that a header names, each with its weight."""
    weights = {}
    for each in accept.lower().split(","):
        kind, *parameters = (part.strip() for part in each.split(";"))
        weights[kind] = _weight(parameters)
    return weights


def preferred(accept: str, types: Sequence[str]) -> str:
    """Return which of some types a header prefers: the first of them if it says nothing, or names none of them."""
    weights = weights_of(accept)

    def rank(kind: str) -> tuple[float, bool]:
        ranges = (kind, f"{kind.partition('/')[0]}/*", "*/*")
        return next((weights[each] for each in ranges if each in weights), 0.0), kind in weights

    return max(types, key=rank)  # of equals, the first


def _weight(parameters: Iterable[str]) -> float:
    text = next((each.partition("=")[2] for each in parameters if each.startswith("q=")), "1")
    try:
        return float(text)
    except ValueError:
        return 1.0
