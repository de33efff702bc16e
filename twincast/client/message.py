"""A message of the wire as the client has it: an object of JSON."""

from typing import Any

import msgspec

Message = dict[str, Any]
encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(dict[str, Any]).decode
MEASURED = "measured_at_utc"
"""The field with the time at which a reading was measured."""
