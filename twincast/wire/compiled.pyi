from collections.abc import Sequence

from twincast.core.model import DataUpdate, Source

def plain_readings(
    payloads: Sequence[bytes], source: Source, message_max_bytes: int
) -> tuple[list[DataUpdate], int]: ...
def text(messages: Sequence[bytes]) -> bytes: ...
