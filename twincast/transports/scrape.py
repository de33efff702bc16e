"""`/metrics`: the server's numbers for Prometheus, to its own machine and to administrators."""

from collections.abc import Callable

from twincast.access.limits import RateLimits
from twincast.access.request import PROXY_HEADERS
from twincast.core.rights import ANYONE, Principal, Rights
from twincast.core.subscription import EVERYWHERE
from twincast.errors import NotPermitted
from twincast.transports.asgi import Scope
from twincast.transports.operation import TEXT, Answer, Call, Operation

PATH = "/metrics"
NEIGHBOUR = Principal("neighbour", Rights(admin=EVERYWHERE))
"""Whoever asks from this machine, which needs no credential for this alone."""
STEPS = 8_000
"""What one answer costs, as steps of a search: about 2 ms."""
_OF_PROXIES = (*(name.encode() for name in PROXY_HEADERS), b"via")


class Scrape:
    """The operation that Prometheus asks for, every few seconds."""

    def __init__(self, text: Callable[[], bytes], content_type: str, limits: RateLimits) -> None:
        """Make the operation.

        Args:
            text: returns the numbers, as Prometheus reads them.
            content_type: what that is.
            limits: counts what is read.
        """
        self._limits = limits
        self._text = text
        self._content_type = content_type.encode()
        self.operation = Operation("GET", PATH, self.metrics, (), content=TEXT)

    async def metrics(self, call: Call) -> Answer:
        """Return the server's numbers, as Prometheus reads them.

        Open to programs on the server's own machine; what comes by a proxy does not count as that. To others it takes
        the right `admin` on `*`.
        """
        principal = call.caller.principal
        if principal.id == ANYONE.id or not principal.may_everywhere("admin"):
            raise NotPermitted(f"{principal.id} has no right to admin on `*`, which this takes from another machine")
        self._limits.begin_reading(call.caller).spend(STEPS)
        return Answer(self._text(), content_type=self._content_type)


def came_by_proxy(scope: Scope) -> bool:
    """Whether a request says that somebody passed it on."""
    return any(name.lower().startswith(_OF_PROXIES) for name, _ in scope["headers"])
