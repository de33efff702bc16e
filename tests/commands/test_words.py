"""What words of the command line mean."""

import msgspec
import pytest

from twincast.commands.ask import args_of
from twincast.commands.send import raw_json, value_of


@pytest.mark.parametrize("text", ["1", "1.50", "-0", '"x"', "[1, 2]", '{"a": null}', " true "])
def test_json_keeps_its_text(text: str) -> None:
    value = value_of(text)
    assert isinstance(value, msgspec.Raw)
    assert bytes(value).decode() == text.strip()


@pytest.mark.parametrize("text", ["on", "", "01", "1 2", "{a: 1}", "NaN", "[" * 100_000])
def test_what_is_not_json_is_text_on_the_command_line_and_an_error_in_a_line(text: str) -> None:
    assert value_of(text) == text
    with pytest.raises(ValueError, match=r"\w"):
        raw_json(text)


def test_arguments_are_pairs_or_one_object() -> None:
    assert msgspec.json.encode(args_of(["rpm=900", "mode=eco", "text=a=b"])) == b'{"rpm":900,"mode":"eco","text":"a=b"}'
    assert msgspec.json.encode(args_of(['{"rpm": 1.50}'])) == b'{"rpm":1.50}'
    assert args_of([]) == {}


@pytest.mark.parametrize("words", [["fast"], ["=1"], ["{bad"], ["a=1", "b"]])
def test_other_arguments_are_refused(words: list[str]) -> None:
    with pytest.raises(ValueError, match="ARGS"):
        args_of(words)
