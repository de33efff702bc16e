"""The newest state of the devices, as a program reads it."""

from collections.abc import Callable, Iterator, Mapping

import msgspec

from twincast.client.events import Twin
from twincast.core import model
from twincast.core.rights import Principal
from twincast.core.state import State


class StateView(Mapping[str, Twin]):
    """The newest twin of every device that may be read; it is always current, and read-only.

    Values are decoded when they are asked for. An iteration goes over the devices that there were when it began;
    `dict(view)` is a copy to keep.
    """

    def __init__(self, state: Callable[[], State], principal: Principal) -> None:
        """Show what a principal may read of the state; `state` returns it, at each use."""
        self._state = state
        self._principal = principal
        self._is_all = principal.may_everywhere("read")

    def __getitem__(self, device_id: str) -> Twin:
        twin = self._state().twins.get(device_id)
        if twin is None or not self._may_read(device_id):
            raise KeyError(device_id)
        return twin_of(twin)

    def __contains__(self, device_id: object) -> bool:
        return device_id in self._state().twins and isinstance(device_id, str) and self._may_read(device_id)

    def __iter__(self) -> Iterator[str]:
        names = self._state().names()
        return iter(names) if self._is_all else (name for name in names if self._may_read(name))

    def __len__(self) -> int:
        return len(self._state().names()) if self._is_all else sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"<{len(self)} devices>"

    def _may_read(self, device_id: str) -> bool:
        return self._is_all or self._principal.may("read", device_id)


def twin_of(twin: model.Twin) -> Twin:
    """Return a twin as a program reads it."""
    return Twin(
        *(msgspec.json.decode(twin.value), twin.updated_at_utc, twin.seq, twin.source),
        twin.measured_at_utc or None,
        twin.clock or None,
    )
