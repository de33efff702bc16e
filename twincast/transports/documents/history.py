"""The parameters of the calls for history, as OpenAPI describes them."""

from typing import Any

from twincast.history.fill import FILLS
from twincast.history.query import AGGREGATES
from twincast.history.request import FORMATS, KINDS, LIMIT_DEFAULT, LIMIT_MAX, PATHS_MAX, POINTS_MIN
from twincast.history.widths import BUCKETS_MAX
from twincast.transports.documents.parameters import DEVICE_IN_QUERY, TEXT, parameter, whole_number_schema

_BOUND = "ISO 8601 with a zone; `now`; `-15m`, `-1h`, `-7d`; or a position, `EPOCH:SEQ`, which stands behind its entry"


def _several(names: Any, default: str) -> dict[str, Any]:
    return {"type": "array", "items": {"enum": list(names)}, "description": default}


DEVICE_ID = {**DEVICE_IN_QUERY, "required": False}
AT = parameter(
    "at",
    {**TEXT, "examples": ["2026-11-25T10:00:00Z"]},
    "the state as it was then: ISO 8601 with a zone, `now`, `-1h`, or a position, `EPOCH:SEQ`; 404 if that is in the"
    " future, 410 if the log no longer reaches back to it",
)
# Defaults of what only entries, or only buckets, have stand in words: a page that fills them in would ask for both.
PARAMETERS = (
    parameter(
        "from",
        {**TEXT, "examples": ["-1h"]},
        f"the beginning; {_BOUND}. Buckets: 24 hours before the end; a position only with `time=stored`",
    ),
    parameter("to", {**TEXT, "examples": ["now"]}, "the end, which is not in the range; the same. Buckets: now"),
    parameter(
        "path",
        {"type": "array", "items": TEXT, "maxItems": PATHS_MAX},
        "a part of the value, as a JSON Pointer, such as `/motor/rpm`; may be given several times",
    ),
    parameter(
        "time",
        {"enum": ["measured", "stored"], "default": "measured"},
        "which time counts: when it was measured, as far as readings say so, or when it was stored",
    ),
    parameter("order", {"enum": ["desc", "asc"]}, "entries: the newest first, as it is by default, or the oldest"),
    parameter(
        "limit",
        whole_number_schema(LIMIT_MAX, minimum=1),
        f"entries: how many of each device at most; {LIMIT_DEFAULT:,} by default",
    ),
    parameter("cursor", TEXT, "entries: what the page before had as `cursor`; the other parameters stay the same"),
    parameter(
        "kinds",
        _several(KINDS, "readings, late ones too, if not given"),
        "entries: which; `control` and `deleted` are marks on a time axis",
    ),
    parameter(
        "every",
        {**TEXT, "examples": ["1h"]},
        "the width of buckets: a whole number and `ms s m h`, or `d w mo y` by the calendar of `tz`; weeks begin on"
        " Monday. Buckets are whole, and aligned to 1970 or the calendar",
    ),
    parameter(
        "points",
        whole_number_schema(BUCKETS_MAX, minimum=POINTS_MIN),
        "at most so many buckets: the server chooses the width, and the answer names it",
    ),
    parameter("agg", _several(AGGREGATES, "avg, min and max if not given"), "buckets: what is made of the numbers"),
    parameter(
        "fill",
        {"enum": list(FILLS)},
        "buckets: what stands where nothing was: no row, as it is by default, a row of nulls, the row before, or a line"
        " between both sides. `count` is 0 there; `sum`, `min_t` and `max_t` are null, as is what is after now",
    ),
    parameter("tz", {**TEXT, "examples": ["Europe/Berlin"]}, "buckets: the calendar's zone, by IANA; UTC by default"),
    parameter("format", {"enum": list(FORMATS)}, "instead of the header `Accept`"),
)
