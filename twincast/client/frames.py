"""Data frames of histories, by pandas or polars. A column has the same type whatever is in it, and keeps each value."""

import math
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from twincast.errors import ExtraMissing

TIMES = frozenset({"time", "stored_time", "min_t", "max_t"})
TEXTS = frozenset({"device_id", "path", "source"})
FLOATS = frozenset({"number", "avg", "sum", "p50", "p95"})
WHOLE_NUMBERS = frozenset({"seq", "count"})
EXTREMES = frozenset({"min", "max"})
"""Of whole numbers these are whole, to 64 bits."""

Columns = dict[str, list[Any]]


def pandas_frame(columns: Columns) -> Any:
    """Return a pandas DataFrame. Raises ExtraMissing if pandas is not installed."""
    pandas = _imported("pandas")
    types = {TIMES: "datetime64[us, UTC]", TEXTS: "str", FLOATS: "float64", WHOLE_NUMBERS: "int64"}

    def series(name: str, values: list[Any]) -> Any:
        for names, dtype in types.items():
            if name in names:
                return pandas.Series(values, dtype=dtype)
        return _kept(name, values, pandas.Series, lambda: pandas.Series(values, dtype=object), "float64")

    return pandas.DataFrame({name: series(name, values) for name, values in columns.items()})


def polars_frame(columns: Columns) -> Any:
    """Return a polars DataFrame. Raises ExtraMissing if polars is not installed."""
    polars = _imported("polars")
    types = {
        TIMES: polars.Datetime("us", "UTC"),
        TEXTS: polars.String,
        FLOATS: polars.Float64,
        WHOLE_NUMBERS: polars.Int64,
    }

    def series(name: str, values: list[Any]) -> Any:
        for names, dtype in types.items():
            if name in names:
                return polars.Series(name, values, dtype=dtype)
        return _kept(
            *(name, values),
            lambda values, dtype=None: polars.Series(name, values, dtype=dtype, strict=False),
            lambda: polars.Series(name, values, dtype=polars.Object),
            polars.Float64,
        )

    return polars.DataFrame([series(name, values) for name, values in columns.items()])


def _kept(name: str, values: list[Any], make: Callable[..., Any], as_objects: Callable[[], Any], floats: Any) -> Any:
    """Return a column of the type that its values have in common; of Python's objects, if that would change one."""
    if all(value is None for value in values):
        return make(values, dtype=floats) if name in EXTREMES else as_objects()
    try:
        series = make(values)
    except (TypeError, ValueError, OverflowError):
        return as_objects()
    return series if all(map(_is_kept, series.to_list(), values)) else as_objects()


def _is_kept(found: Any, value: Any) -> bool:
    """Whether what a library made of a value is the same; what is missing may be null, or not a number."""
    if value is None:
        return found is None or (isinstance(found, float) and math.isnan(found))
    if isinstance(value, dict):
        return isinstance(found, dict) and all(_is_kept(found.get(name), value.get(name)) for name in found | value)
    if isinstance(value, list):
        return isinstance(found, list) and len(found) == len(value) and all(map(_is_kept, found, value))
    if isinstance(value, bool | str):
        return type(found) is type(value) and bool(found == value)
    return isinstance(found, int | float) and not isinstance(found, bool) and found == value


def columns_of(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> Columns:
    """Return rows by columns."""
    return {name: [row[index] for row in rows] for index, name in enumerate(names)}


def _imported(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError:
        raise ExtraMissing(f"{name} is not installed; `pip install {name}` brings it") from None
