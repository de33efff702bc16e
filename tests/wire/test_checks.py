"""What is checked on every wire alike."""

import pytest
from msgspec import Raw

from twincast.core.model import Control, DataUpdate, Deleted
from twincast.errors import TooLarge, ValidationFailed
from twincast.wire.checks import check_command, check_value_sizes
from twincast.wire.client_messages import decode_message
from twincast.wire.requests import decode_reading, decode_readings


def test_a_value_and_the_args_of_a_command_may_be_as_long_as_the_limit_and_no_longer() -> None:
    value = Raw(b'"12345678"')
    entries = (DataUpdate("a", value, "", "rest"), Control("a", "on", value, "", "rest"), Deleted("a", "", "rest"))
    check_value_sizes(entries, 10)
    for entry in entries[:2]:
        with pytest.raises(TooLarge, match="at most 9 bytes; the one for 'a' has 10"):
            check_value_sizes((entry,), 9)


@pytest.mark.parametrize(("target", "command"), [(None, "on"), ("a", None), ("", "on"), ("a", "x\n")])
def test_a_command_needs_a_target_and_a_name(target: str | None, command: str | None) -> None:
    with pytest.raises(ValidationFailed):
        check_command(target, command, Raw(b"{}"))


def test_args_are_an_object_without_white_space_and_an_empty_one_if_there_are_none() -> None:
    assert [bytes(check_command("a", "on", Raw(text))) for text in (b"", b"null", b'{ "x": 1 }')] == [
        b"{}",
        b"{}",
        b'{"x":1}',
    ]
    with pytest.raises(ValidationFailed, match="`args` must be a JSON object"):
        check_command("a", "on", Raw(b"[1]"))


@pytest.mark.parametrize("given", [b"1764200000", b"[]", b"true"])
def test_a_measured_time_that_is_no_text_is_answered_with_one_that_is(given: bytes) -> None:
    reading = b'{"device_id": "a", "value": 1, "measured_at_utc": %s}' % given
    said = r"expected a text in ISO 8601 with its zone, such as .*, at `\$(\[.+\])?\.measured_at_utc`"
    with pytest.raises(ValidationFailed, match=said):
        decode_reading(reading, "rest")
    with pytest.raises(ValidationFailed, match=said):
        decode_readings(b"[%s]" % reading, "rest", 10)
    with pytest.raises(ValidationFailed, match=said):
        decode_message(b'{"type": "telemetry", %s' % reading[1:])
