"""How settings are read, from arguments, the environment and the file `.env`; and what is wrong with one, in words."""

import os
import re
from typing import Any

from pydantic import ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from twincast.environment import (
    ENCODING,
    ENV_FILE,
    NOT_TEXT,
    PREFIX,
    is_link,
    refuse_halves,
    unreadable,
)
from twincast.errors import SettingUnusable


class FrozenSettings(BaseSettings):
    """Frozen settings, and from where they are read; each default is the documented one.

    Raises:
        SettingUnusable: one is wrong; the message names it, in our own words, and contains no secret.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=ENV_FILE,
        env_file_encoding=ENCODING,
        env_ignore_empty=True,  # as `TWINCAST_PORT=${PORT}` leaves it where there is none
        extra="ignore",
        frozen=True,
    )

    def __init__(self, **given: Any) -> None:
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise SettingUnusable("; ".join(_problem(each, given) for each in error.errors())) from None
        except SettingsError as error:
            raise SettingUnusable(_unread(error)) from None
        except UnicodeError:
            raise SettingUnusable(NOT_TEXT) from None
        except OSError as error:
            raise unreadable(error) from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """See BaseSettings: arguments before the environment before the file."""
        for source in (env_settings, dotenv_settings):
            assert isinstance(source, EnvSettingsSource)
            refuse_halves(source.env_vars)
            source.env_vars = {name: text for name, text in source.env_vars.items() if not is_link(name, text)}
        return init_settings, env_settings, dotenv_settings

    @property
    def ignored(self) -> list[str]:
        """What in the environment looks like a setting and is not meant for this program, in words."""
        return [
            f"{name}={text} is ignored: it is a link to a service, as Kubernetes and Docker make them, and no setting"
            for name, text in sorted(os.environ.items())
            if is_link(name, text)
        ]


_EXPECTED = {
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "a text",
    "string_unicode": "a text in UTF-8",
}
"""What a setting must be, by what pydantic finds wrong with it."""
_LISTS = {
    "allow_origin": '["https://twin.example.org"]',
    "trusted_proxy": '["10.0.0.0/8"]',
    "jwt_algorithm": '["EdDSA"]',
    "keep_for": '["lab/*=7d"]',
}
"""Of the settings that are lists, what may be in one; of all others it is the name of a host."""
_BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


def _problem(problem: Any, given: dict[str, Any]) -> str:
    name, kind, context = str(problem["loc"][0]), problem["type"], problem.get("ctx", {})
    bounds = [f"{words} {context[sign]}" for sign, words in _BOUNDS.items() if sign in context]
    if kind == "value_error":
        said = str(context["error"])
    elif kind == "literal_error":
        said = f"must be {context['expected']}"
    elif kind == "tuple_type":
        said = f"must be a list in JSON, such as {_list_example(name)}"
    else:
        said = f"must be {_EXPECTED.get(kind) or ' and '.join(bounds) or 'something else'}"
    return f"{_where(name, given)}: {said}"


def _where(field: str, given: dict[str, Any]) -> str:
    """Return where a person has set something."""
    if field in given:
        return f"--{field.replace('_', '-')}"
    variable = f"{PREFIX}{field.upper()}"
    return variable if variable in map(str.upper, os.environ) else f"{variable} in {ENV_FILE}"


def _unread(error: SettingsError) -> str:
    """Say which variable is no JSON: pydantic-settings names the field, and only in a sentence."""
    field = re.search(r'field "(\w+)"', str(error))
    where = "a list of the settings" if field is None else _where(field[1], {})
    return f"{where}: a list is JSON, with its quotes, such as {_list_example('' if field is None else field[1])}"


def _list_example(field: str) -> str:
    return _LISTS.get(field, '["twin.example.org"]')
