"""Names, values and ids as they may come over any wire, and how JSON is written without white space."""

import json
from typing import Any

from hypothesis import strategies as st

ids = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=128)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), children, max_size=4)
    ),
    max_leaves=10,
)
message_ids = ids | st.integers(-(2**53) + 1, 2**53 - 1)
ascii_or_not = st.booleans()


def compact(value: Any, ensure_ascii: bool = False) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=ensure_ascii).encode()
