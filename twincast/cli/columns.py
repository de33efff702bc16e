"""How wide the columns of a table of devices are: the value gets the room, a long name loses its middle."""

from typing import NamedTuple

from rich.cells import cell_len, set_cell_size

NARROW = 60
"""Below this many columns the least important one goes, and the gaps are small."""
NAME_MIN = 8


class Widths(NamedTuple):
    """In cells of the terminal."""

    name: int
    value: int
    gap: int
    is_narrow: bool


def widths(width: int, longest_name: int, others: tuple[int, ...]) -> Widths:
    """Share a terminal's width among the name, the value and other columns, of which only the first stays if narrow."""
    is_narrow = width < NARROW
    kept = others[:1] if is_narrow else others
    gap = 1 if is_narrow else 2
    room = width - sum(kept) - gap * (1 + len(kept))
    name = max(1, min(longest_name, max(NAME_MIN, room * 2 // 5)))
    return Widths(name, max(1, room - name), gap, is_narrow)


def shortened(text: str, cells: int) -> str:
    """Shorten a name in its middle, for names of devices differ at their ends.

    A wide letter that would be cut through is left out.
    """
    if cell_len(text) <= cells:
        return text
    head = cells // 2
    tail = cells - 1 - head
    return f"{set_cell_size(text, head).rstrip()}…{_end(text, tail)}"


def _end(text: str, cells: int) -> str:
    end = ""
    for char in reversed(text):
        if cell_len(char + end) > cells:
            break
        end = char + end
    return end
