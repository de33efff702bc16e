"""What words of the command line mean: values and arguments as JSON, or else as text; actions; durations."""

import json
import re
from typing import Any, NoReturn

import msgspec

from twincast.errors import MalformedJson, ValidationFailed
from twincast.machine import quoted
from twincast.wire.values import check_value

_BEGINS_AS_JSON = re.compile(r'\s*[{["]').match
SHOWN_CHARS = 60
_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def value_of(text: str, what: str = "VALUE") -> msgspec.Raw | str:
    """Return what a word of the command line means: JSON if it is JSON, else the text itself.

    Args:
        text: the word.
        what: its name, for the error.

    Raises:
        ValueError: it begins like an object, a list or a string of JSON, and is none: a mistake, or a shell's work.
        BadMessage: it is JSON that no server takes.
    """
    try:
        return raw_json(text)
    except ValueError as error:
        if not _BEGINS_AS_JSON(text):
            return text
        itself = f"; the text itself is sent as {quoted(json.dumps(text))}" if len(text) <= SHOWN_CHARS else ""
        raise ValueError(f"{what} begins as JSON does and is not JSON: {_with_advice(error, text)}{itself}") from None


def raw_json(text: str) -> msgspec.Raw:
    """Check that a text is one JSON value, and keep it as it is written.

    Raises:
        ValueError: it is not; the words say where.
        BadMessage: it is, and no server takes it: a number beyond 64 bits, a name twice in an object, too deep.
    """
    encoded = text.strip().encode(errors="surrogatepass")
    try:
        msgspec.json.decode(encoded)
    except msgspec.ValidationError:  # which is of numbers here, for nothing else is asked of the value
        raise MalformedJson("a number is beyond 64 bits; send it as a string to keep every digit") from None
    except (msgspec.DecodeError, UnicodeError):
        raise ValueError(_fault(text)) from None
    except RecursionError:
        pass  # in better words by what comes
    check_value(encoded)
    return msgspec.Raw(encoded)


def args_of(words: list[str]) -> dict[str, Any]:
    """Return a command's arguments: one JSON object, or NAME=VALUE pairs whose values are JSON or else text.

    Raises:
        ValueError: they are something else.
        BadMessage: see `value_of`.
    """
    if len(words) == 1 and words[0].lstrip().startswith("{"):
        try:
            return msgspec.json.decode(raw_json(words[0]), type=dict[str, msgspec.Raw])
        except ValueError as error:
            raise ValueError(f"ARGS is not a JSON object: {_with_advice(error, words[0])}") from None
    pairs = [word.partition("=") for word in words]
    for name, equals, _ in pairs:
        if not name or not equals:
            raise ValueError(f"ARGS takes a JSON object or NAME=VALUE pairs, not {name!r}")
    return {name: value_of(value, f"ARGS: {_short(name)}") for name, _, value in pairs}


def one_word(words: list[str]) -> str:
    """Return the only word of a value.

    Raises:
        ValueError: there are more, as a shell makes them of JSON that is not quoted.
    """
    if len(words) == 1:
        return words[0]
    raise ValueError(f"VALUE is one word, not {len(words)}; the second one is {_short(words[1])!r}. {_ADVICE}")


def duration_s(text: str) -> int:
    """Read a duration such as 30d, 12h or 90s.

    Raises:
        ValidationFailed: it is not one.
    """
    match = re.fullmatch(r"([1-9][0-9]{0,8})([smhdw])", text)
    if match is None:
        raise ValidationFailed(f"a duration is a number with s, m, h, d or w, such as 30d; not {text[:40]!r}")
    return int(match[1]) * _UNITS_S[match[2]]


def actions_of(texts: list[str]) -> list[str]:
    """Return the actions in options such as `publish,read`."""
    return [action for text in texts for action in text.replace(" ", "").split(",") if action]


def _with_advice(fault: Exception, text: str) -> str:
    return f"{fault}; what came is {_short(text)!r}. {_ADVICE}"


def _fault(text: str) -> str:
    """Say what keeps a text from being JSON, and where."""
    try:
        json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        return f"at character {error.pos + 1} {error.msg[:1].lower()}{error.msg[1:]}"
    except ValueError as error:
        return str(error)
    return "it has a lone surrogate, half a letter"  # which the standard library takes


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number that JSON has")


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…"


_ADVICE = "In a shell JSON is quoted as a whole: " + quoted('{"rpm": 900}')
