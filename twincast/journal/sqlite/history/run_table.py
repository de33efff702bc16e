"""The table of sorted runs over what is not closed: its columns, and how it has rows of the log."""

from twincast.history.times import MIN_US
from twincast.journal.sqlite.history.layout import BELIEVED_AHEAD_US, KINDS, LATE, READING, SOURCES
from twincast.journal.sqlite.history.sorted_run import SHORT_BYTES
from twincast.journal.sqlite.history.times import us_of

RUN_COLUMNS = """
    slice integer not null, device integer not null, at_us integer not null, seq integer not null,
    stored_us integer, kind integer not null, bytes integer not null, value text, source integer,
    primary key (slice, device, at_us, seq)
"""
"""As the table `entry` of a partition, with the size of each value; of the values only short ones, the log has all: to
look each up there takes three times as long as to add it up. A source is there if an entry is what its row has, and no
more: a reading with a short value, and times in our own form."""
_NUMBERED = " ".join(f"when '{name}' then {number}" for number, name in KINDS.items())
_SOURCES = " ".join(f"when '{name}' then {number}" for number, name in SOURCES.items())

_READINGS = f"('{KINDS[READING]}', '{KINDS[LATE]}')"


def kind_of(type_: str) -> str:
    """Return the SQL for the number of a kind, of what the log has as its type."""
    return f"case {type_} {_NUMBERED} end"


def value_of(run: str) -> str:
    """Return the SQL for the value of an entry of a run."""
    return f"coalesce({run}.value, (select log.value from hot.log log where log.seq = {run}.seq))"


def timed(rows: str) -> str:
    """Return the SQL for rows of the log, as the table has them from `at_us` on."""
    return f"""
select seq, device_id, iif(is_believed, measured, stored) as at_us, iif(is_believed, stored, null) as stored_us,
       {kind_of("type")} as kind, bytes, iif(is_short, value, null) as value,
       iif(is_short and us is not null and (
               type = '{KINDS[READING]}' and measured_at_utc is null or type in {_READINGS} and is_believed
           ) and iif(is_believed, measured, stored) >= {MIN_US + BELIEVED_AHEAD_US},
           case source {_SOURCES} end, null) as source
from (
    select *, measured is not null and measured <= stored + {BELIEVED_AHEAD_US} as is_believed,
           bytes <= {SHORT_BYTES} and value is not null as is_short
    from (
        select *, coalesce(us, time_us(timestamp_utc)) as stored, coalesce(octet_length(value), 0) as bytes
        from (
            select *, {us_of("timestamp_utc")} as us,
                   iif(measured_at_utc is null, null, {us_of("measured_at_utc")}) as measured
            from ({rows}) limit -1
        ) limit -1
    ) limit -1
)
"""
