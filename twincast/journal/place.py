"""Where the server of a journal is reached: a small file beside it, for the commands that run beside the server."""

import os
from contextlib import suppress

import msgspec


class Place(msgspec.Struct, frozen=True):
    """Where a server is, and what its clients trust it by."""

    url: str
    fingerprint: str | None = None


def note_place(journal_path: str, place: Place) -> None:
    """Note where the server is that runs on a journal's file. Raises OSError if that cannot be."""
    with open(_name(journal_path), "wb") as file:
        file.write(msgspec.json.encode(place))


def place_noted(journal_path: str) -> Place | None:
    """Return what was noted; None if nothing was, or something that this version does not write."""
    try:
        with open(_name(journal_path), "rb") as file:
            return msgspec.json.decode(file.read(), type=Place)
    except (OSError, ValueError, msgspec.MsgspecError):
        return None


def forget_place(journal_path: str) -> None:
    """Take note that no server is there any more."""
    with suppress(OSError):
        os.unlink(_name(journal_path))


def _name(journal_path: str) -> str:
    return f"{os.path.realpath(journal_path)}-place"
