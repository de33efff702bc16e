"""Amounts as a person reads them: counts, bytes and times."""

_BYTES = ("bytes", "KB", "MB", "GB", "TB", "PB")
_TIMES = ((31_557_600, "years"), (86_400, "days"), (3_600, "hours"), (60, "minutes"))
_THOUSAND = 1_000


def counted(number: int, noun: str) -> str:
    """Return how many there are of something, in words: `1 reading`, `2,000 readings`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def in_bytes(size: float) -> str:
    """Return a size as `2.5 GB`: by thousands, as disks are sold."""
    unit = 0
    while size >= _THOUSAND and unit < len(_BYTES) - 1:
        size /= _THOUSAND
        unit += 1
    return f"{size:,.0f} {_BYTES[0]}" if unit == 0 else f"{size:.1f} {_BYTES[unit]}"


def in_time(seconds: float) -> str:
    """Return a time as `12 days`, in the largest unit of which there are two."""
    for length_s, unit in _TIMES:
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:,.0f} {unit}"
    return f"{seconds:,.0f} s"
