"""Where the server of a journal is reached: a small file beside it, for the commands that run beside the server."""

import os
from contextlib import suppress

import msgspec


class Place(msgspec.Struct, frozen=True):
    """The address of a server, and the fingerprint by which clients trust it."""

    url: str
    fingerprint: str | None = None


def note_place(journal_path: str, place: Place) -> None:
    """Write the address of the server that runs on a journal. Raises OSError if the file cannot be written."""
    with open(_name(journal_path), "wb") as file:
        file.write(msgspec.json.encode(place))


def place_noted(journal_path: str) -> Place | None:
    """Return the noted address; None if there is none, or it was written by another version."""
    try:
        with open(_name(journal_path), "rb") as file:
            return msgspec.json.decode(file.read(), type=Place)
    except (OSError, ValueError, msgspec.MsgspecError):
        return None


def forget_place(journal_path: str) -> None:
    """Remove the note: the server has ended."""
    with suppress(OSError):
        os.unlink(_name(journal_path))


def _name(journal_path: str) -> str:
    return f"{os.path.realpath(journal_path)}-place"
