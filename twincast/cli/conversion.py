"""How words of the command line become values: what is text is not converted.

Typer converts every parameter by pydantic, from its version 0.29 on, whether there is anything to convert or not; to
import that takes longer than all else that a command like `send` does. So it is asked only for what is no text, such as
numbers. An older Typer asks none of this.
"""

from typing import Any, get_args

import typer.core


class Command(typer.core.TyperCommand):
    """A command whose parameters are converted only if they need be."""

    def get_params(self, ctx: Any) -> list[Any]:
        """See TyperCommand."""
        return _spared(super().get_params(ctx))


class Group(typer.core.TyperGroup):
    """Commands under one name. What stands before that of a command is converted only if it needs be."""

    def get_params(self, ctx: Any) -> list[Any]:
        """See TyperGroup."""
        return _spared(super().get_params(ctx))


def _spared(parameters: list[Any]) -> list[Any]:
    for each in parameters:
        if hasattr(each, "type_descriptor") and "get_runtime_param" not in vars(each):
            each.get_runtime_param = _Sparing(each).itself
    return parameters


class _Sparing:
    """The conversion of one parameter."""

    def __init__(self, parameter: Any) -> None:
        self._type = parameter.type_descriptor.annotation
        self._takes_many = parameter.multiple or parameter.nargs == -1
        self._typers = parameter.get_runtime_param

    def itself(self) -> "_Sparing":
        """Stand in for Typer's, which is made when it is needed."""
        return self

    def coerce(self, value: Any, *how: Any, **named: Any) -> Any:
        """Return what a parameter means; None, or nothing, if it was not given."""
        if value is None:
            return () if self._takes_many else None
        if type(value) is self._type:
            return value
        if self._takes_many and get_args(self._type) == (str,) and all(type(each) is str for each in value):
            return list(value)
        return self._typers().coerce(value, *how, **named)
