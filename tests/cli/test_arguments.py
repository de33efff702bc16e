"""What words of the command line mean."""

import json
import shlex

import msgspec
import pytest

from twincast.cli.arguments import actions_of, args_of, duration_s, one_word, raw_json, value_of
from twincast.errors import BadMessage, ValidationFailed


@pytest.mark.parametrize("text", ["1", "1.50", "-0", '"x"', "[1, 2]", '{"a": null}', " true "])
def test_json_keeps_its_text(text: str) -> None:
    value = value_of(text)
    assert isinstance(value, msgspec.Raw)
    assert bytes(value).decode() == text.strip()


@pytest.mark.parametrize("text", ["on", "", "01", "1 2", "NaN", "-Infinity", "+1", ".5", "True"])
def test_what_is_not_json_is_text_on_the_command_line_and_an_error_in_a_line(text: str) -> None:
    assert value_of(text) == text
    with pytest.raises(ValueError, match=r"\w"):
        raw_json(text)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{bad", "at character 2 expecting property name enclosed in double quotes"),
        ("{rpm: 900}", "what came is '{rpm: 900}'"),
        (' {"a":1} x', "at character 10 extra data"),
        ("[1 2]", "at character 4"),
        ("[1,2", "at character 5"),
        ('"on', "unterminated string"),
        ('"a\tb"', "control character"),
        ("[NaN]", "NaN is no number that JSON has"),
        ('{"a":-Infinity}', "-Infinity is no number that JSON has"),
        ('"\\ud800"', "lone surrogate"),
    ],
)
def test_what_begins_as_json_and_is_none_is_refused_with_where_and_how_to_quote_it(text: str, part: str) -> None:
    with pytest.raises(ValueError, match="begins as JSON does and is not JSON") as refused:
        value_of(text)
    said = str(refused.value)
    assert part in said and "quoted as a whole: '{\"rpm\": 900}'" in said
    (word,) = shlex.split(said.partition("the text itself is sent as ")[2])
    assert json.loads(msgspec.json.encode(value_of(word))) == text
    with pytest.raises(ValueError, match=r"\w"):
        raw_json(text)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("18446744073709551616", "beyond 64 bits"),
        ("1e400", "beyond 64 bits"),
        ("-1e400", "beyond 64 bits"),
        ("9" * 5_000, "beyond 64 bits"),
        ('{"a":[1e999]}', "beyond 64 bits"),
        ('{"a":1,"a":2}', "the name 'a' twice"),
        ("[" * 33 + "]" * 33, "nested 32 deep"),
        ("[" * 100_000, "nested 32 deep"),
    ],
)
def test_json_that_no_server_takes_is_refused_and_is_no_text(text: str, part: str) -> None:
    for read in (value_of, raw_json):
        with pytest.raises(BadMessage, match=part):
            read(text)


def test_a_value_is_one_word_and_what_a_shell_made_of_it_is_said() -> None:
    assert one_word(["{a:1}"]) == "{a:1}"
    with pytest.raises(ValueError, match=r"VALUE is one word, not 2; the second one is '1\}'.*'\{\"rpm\": 900\}'"):
        one_word(["{a:", "1}"])


def test_arguments_are_pairs_or_one_object() -> None:
    assert msgspec.json.encode(args_of(["rpm=900", "mode=eco", "text=a=b"])) == b'{"rpm":900,"mode":"eco","text":"a=b"}'
    assert msgspec.json.encode(args_of(['{"rpm": 1.50}'])) == b'{"rpm":1.50}'
    assert args_of([]) == {}


@pytest.mark.parametrize("words", [["fast"], ["=1"], ["{bad"], ["a=1", "b"], ["a={bad"]])
def test_other_arguments_are_refused(words: list[str]) -> None:
    with pytest.raises(ValueError, match="ARGS"):
        args_of(words)


def test_durations_and_lists_read_as_people_write_them() -> None:
    assert [duration_s(text) for text in ("90s", "5m", "12h", "30d", "2w")] == [90, 300, 43_200, 2_592_000, 1_209_600]
    for text in ("", "30", "d", "-1d", "1.5h", "0d", "1y"):
        with pytest.raises(ValidationFailed, match="duration"):
            duration_s(text)
    assert actions_of(["publish, read", "command"]) == ["publish", "read", "command"]
