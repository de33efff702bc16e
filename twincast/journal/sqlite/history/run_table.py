"""The table of sorted runs over what is not closed: its columns, and how it has rows of the log."""

from twincast.journal.sqlite.history.layout import BELIEVED_AHEAD_US, KINDS
from twincast.journal.sqlite.history.times import us_of

_SHORT_BYTES = 64
"""Values up to so long are in the index too: to look each up in the log takes three times as long as to add it up."""
RUN_COLUMNS = """
    slice integer not null, device integer not null, at_us integer not null, seq integer not null,
    stored_us integer, kind integer not null, bytes integer not null, value text,
    primary key (slice, device, at_us, seq)
"""
"""As the table `entry` of a partition, with the size of each value; of the values only short ones, the log has all."""
_NUMBERED = " ".join(f"when '{name}' then {number}" for number, name in KINDS.items())


def kind_of(type_: str) -> str:
    """Return the SQL for the number of a kind, of what the log has as its type."""
    return f"case {type_} {_NUMBERED} end"


def value_of(run: str) -> str:
    """Return the SQL for the value of an entry of a run."""
    return f"coalesce({run}.value, (select log.value from hot.log log where log.seq = {run}.seq))"


def timed(rows: str) -> str:
    """Return the SQL for rows of the log, with their times and kinds as the table `entry` has them."""
    return f"""
select seq, device_id, iif(is_believed, measured, stored) as at_us, iif(is_believed, stored, null) as stored_us,
       {kind_of("type")} as kind, coalesce(octet_length(value), 0) as bytes,
       iif(octet_length(value) <= {_SHORT_BYTES}, value, null) as value
from (
    select *, measured is not null and measured <= stored + {BELIEVED_AHEAD_US} as is_believed from (
        select *, coalesce({us_of("timestamp_utc")}, time_us(timestamp_utc)) as stored,
               iif(measured_at_utc is null, null, {us_of("measured_at_utc")}) as measured
        from ({rows}) limit -1
    ) limit -1
)
"""
