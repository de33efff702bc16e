"""Both implementations of what is compiled: whoever uses `implementation` runs once in Python and once compiled."""

from collections.abc import Iterator
from types import ModuleType

import pytest

from twincast.wire import frames, readings


@pytest.fixture(scope="module", params=["python", "compiled"])
def implementation(request: pytest.FixtureRequest) -> Iterator[str]:
    """Have the package use one of the two."""
    module: ModuleType | None = None
    if request.param == "compiled":
        module = request.getfixturevalue("compiled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readings, "compiled", module)
        patch.setattr(frames, "text", frames.text_in_python if module is None else module.text)
        yield request.param
