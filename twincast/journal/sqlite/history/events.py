"""Entries as the events that they are, written by SQL: one text for many, which is read into entries at once."""

import msgspec

from twincast.core.model import Entry
from twincast.journal.sqlite.history.layout import COMMAND, DELETION, KINDS, LATE, READING

decode = msgspec.json.Decoder(list[Entry]).decode


def event_of(kind: str, seq: str, value: str, stored: str, source: str, *, command: str, claim: str) -> str:
    """Return the SQL for an event, of SQL for what an entry has.

    Args:
        kind: its number.
        seq: its position.
        value: its JSON text.
        stored: when it was stored, as JSON.
        source: the way by which it came, as JSON.
        command: a command's name, or the scope of a deletion, as JSON; null for none.
        claim: what it says of its measured time, see `claim_of`.

    `:name` is its device and `:epoch` its epoch, both as JSON.
    """
    return f"""
case {kind}
    when {COMMAND} then
        '{{"type":"{KINDS[COMMAND]}","target":' || :name || ',"command":' || {command} || ',"args":' || {value}
    when {DELETION} then '{{"type":"{KINDS[DELETION]}","device_id":' || :name || coalesce(',"scope":' || {command}, '')
    else iif({kind} = {LATE}, '{{"type":"{KINDS[LATE]}","device_id":', '{{"type":"{KINDS[READING]}","device_id":')
        || :name || ',"value":' || {value} || {claim}
end || ',"timestamp_utc":' || {stored} || ',"source":' || {source} || ',"seq":' || {seq}
    || ',"epoch":' || :epoch || '}}'"""


def claim_of(measured: str, *, is_off: str = "0") -> str:
    """Return the SQL for what an event says of its measured time.

    Args:
        measured: SQL for that as JSON, or for null.
        is_off: SQL for whether it is not believed.
    """
    return f"""coalesce(',"measured_at_utc":' || {measured} || iif({is_off}, ',"clock":"off"', ''), '')"""
