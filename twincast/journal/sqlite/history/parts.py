"""JSON Pointers in SQL: the part of a value that one means, as the text that stands there."""

from itertools import product

import apsw
import msgspec

from twincast.history.pointer import Pointer

_BOTH_MAX = 4
"""A number in a pointer may be an index, or a name of digits. Each doubles the paths that are tried."""
_FIND = "part_of"


def part_of(pointer: Pointer, value: str) -> str:
    """Return the SQL for the JSON text of the part of a value that a pointer means; null if there is none.

    Args:
        pointer: the pointer.
        value: SQL, whose value is JSON text.
    """
    if not pointer.tokens:
        return value
    steps = [_steps(token) for token in pointer.tokens]
    if not all(steps) or sum(len(each) > 1 for each in steps) > _BOTH_MAX:
        return f"{_FIND}({value}, {_quoted(pointer.text)})"
    paths = ["$" + "".join(path) for path in product(*steps)]
    found = [f"{value} -> {_quoted(path)}" for path in paths]
    return found[0] if len(found) == 1 else f"coalesce({', '.join(found)})"


def add_part_of(db: apsw.Connection) -> None:
    """Let SQL on a connection find what SQLite's own paths do not: slowly, for each value comes to Python."""
    db.create_scalar_function(_FIND, _find, 2, deterministic=True)


def _steps(token: str) -> tuple[str, ...]:
    """Return how SQLite writes a step into a value; nothing for a name that it cannot write."""
    if not token.isprintable() or '"' in token or "\\" in token:
        return ()
    name = f'."{token}"'
    return (name, f"[{token}]") if _is_index(token) else (name,)


def _is_index(token: str) -> bool:
    return token.isdigit() and len(token) <= len("1234567890") and (token == "0" or token[0] != "0")


def _find(*arguments: object) -> str | None:
    value, pointer = map(str, arguments)
    try:
        found = Pointer(pointer).find(value.encode())
    except msgspec.DecodeError:  # such as a number that is none of ours, in a row that another program wrote
        return None
    return None if found is None else found.decode()


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
