"""The same without asyncio, for scripts and notebooks.

with connect("http://127.0.0.1:8000") as hub:
hub.publish("lab/thermometer", 21.5)
for change in hub.watch("lab/*"):
print(change.device_id, change.value)
"""

import asyncio
import ssl
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, overload

from twincast.client import hub as asynchronous
from twincast.client.hub import BUFFER_MAX_BYTES
from twincast.client.link import TIMEOUT_S, Link, Token
from twincast.client.watch import Change, Twin
from twincast.core.model import Position
from twincast.core.subscription import Mode

T = TypeVar("T")
C = TypeVar("C", bound=Callable[[Change], None])


class Hub:
    """A server, as a script sees it. Made by `connect`; every method may be called from any thread."""

    def __init__(self, hub: asynchronous.Hub, loop: asyncio.AbstractEventLoop) -> None:
        self._hub = hub
        self._loop = loop

    @property
    def state(self) -> Mapping[str, Twin]:
        """The newest state of every device that is followed, as it is now."""
        return self._wait(self._copy_state())

    @property
    def position(self) -> Position | None:
        """Up to where `state` and the watches have everything."""
        return self._hub.position

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection at the moment."""
        return self._hub.is_connected

    def publish(self, device_id: str, value: Any) -> int:
        """Send a reading and return its seq once the server has it on disk. See the Hub of twincast.client."""
        return self._wait(self._hub.publish(device_id, value))

    def publish_many(self, readings: Iterable[tuple[str, Any]]) -> list[int]:
        """Send readings, each stored by itself, and return their seqs."""
        return self._wait(self._hub.publish_many(readings))

    def control(self, target: str, command: str, args: Mapping[str, Any] | None = None) -> int:
        """Send a command to everyone who watches; return its seq."""
        return self._wait(self._hub.control(target, command, args))

    def reached(self, seq: int) -> None:
        """Wait until `state` has everything up to a seq, such as `publish` returned."""
        self._wait(self._hub.reached(seq))

    def watch(
        self,
        *devices: str,
        mode: Mode = "latest",
        kinds: Iterable[str] | None = None,
        max_hz: float | None = None,
        initial: bool = False,
        timeout_s: float | None = None,
    ) -> Iterator[Change]:
        """Yield the changes of devices. See the Hub of twincast.client.

        Args:
            devices: patterns; everything if there are none.
            mode: "latest" or "every".
            kinds: "data_update", "control", or both.
            max_hz: how often a second to be told at most.
            initial: whether to begin with the newest state of each device.
            timeout_s: when to end because no change came; None for never.
        """
        watch = self._hub.watch(*devices, mode=mode, kinds=kinds, max_hz=max_hz, initial=initial)
        self._wait(watch.__aenter__())
        return self._iterate(watch.__aiter__(), timeout_s)

    @overload
    def on_command(self, target: str) -> Callable[[C], C]: ...

    @overload
    def on_command(self, target: str, call: C) -> C: ...

    def on_command(self, target: str, call: Any = None) -> Any:
        """Call something for each command to a target, in a thread of the client; use it as a decorator too."""
        if call is None:
            return lambda call: self.on_command(target, call)

        async def in_thread(change: Change) -> None:
            await asyncio.to_thread(call, change)

        async def begin() -> None:
            self._hub.on_command(target, in_thread)

        self._wait(begin())
        return call

    def _iterate(self, changes: Any, timeout_s: float | None) -> Iterator[Change]:
        async def following() -> Change:
            async with asyncio.timeout(timeout_s):
                change: Change = await anext(changes)
                return change

        try:
            while True:
                try:
                    yield self._wait(following())
                except TimeoutError:
                    return
        finally:
            if self._loop.is_running():  # a loop over changes may outlive its hub
                self._wait(changes.aclose())

    async def _copy_state(self) -> Mapping[str, Twin]:
        return dict(self._hub.state)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise


@contextmanager
def connect(
    url: str,
    devices: str | Sequence[str] = "*",
    *,
    timeout_s: float | None = TIMEOUT_S,
    buffer_max_bytes: int = BUFFER_MAX_BYTES,
    on_link: Callable[[Link], None] | None = None,
    token: Token = None,
    tls: ssl.SSLContext | None = None,
) -> Iterator[Hub]:
    """Connect to a server for as long as the context lasts. Takes and raises what twincast.client.connect does."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="twincast client", daemon=True)
    thread.start()
    context = asynchronous.connect(
        url, devices, timeout_s=timeout_s, buffer_max_bytes=buffer_max_bytes, on_link=on_link, token=token, tls=tls
    )
    try:
        hub = asyncio.run_coroutine_threadsafe(context.__aenter__(), loop).result()
        try:
            yield Hub(hub, loop)
        finally:
            asyncio.run_coroutine_threadsafe(context.__aexit__(None, None, None), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
