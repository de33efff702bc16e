"""How full a journal is, in words: of bytes, times and pace those that a person reads."""

from collections.abc import Iterator, Mapping
from typing import Any

_BYTES = ("bytes", "KB", "MB", "GB", "TB", "PB")
_TIMES = ((31_557_600, "years"), (86_400, "days"), (3_600, "hours"), (60, "minutes"))
_THOUSAND = 1_000


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


def rows(space: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what a status says of the journal's size, as names and texts."""
    if space["disk_free_bytes"] is None:
        yield "journal_size", f"{in_bytes(space['used_bytes'])} of memory"
    else:
        yield "journal_size", f"{in_bytes(space['file_bytes'])}, and {in_bytes(space['wal_bytes'])} of -wal"
    since = f", since {space['oldest_at_utc']}" if space["oldest_at_utc"] else ""
    yield "changes", f"{space['entries']:,}{since}"
    kept = [in_time(space["keep_s"])] if space["keep_s"] else []
    kept += [f"{in_bytes(space['keep_bytes'])} at most"] if space["keep_bytes"] else []
    yield "kept", ", ".join(kept) or "all"
    if space["disk_free_bytes"] is not None:
        yield "disk", f"{in_bytes(space['disk_free_bytes'])} free; {lasts(space)}"
    if space["problem"]:
        yield "trimming", space["problem"]


def lasts(space: Mapping[str, Any]) -> str:
    """Return for how long a disk lasts."""
    if space["growth_bytes_per_s"] is None:
        return "for how long that lasts is known after a minute of writing"
    pace = f"{in_bytes(space['growth_bytes_per_s'])}/s"
    if space["full_in_s"] is None:
        return f"it does not fill at this pace, {pace}"
    return f"full in {in_time(space['full_in_s'])} at this pace, {pace}"
