"""`/metrics`: the server's numbers for Prometheus, to its own machine and to administrators."""

from functools import cached_property
from typing import TYPE_CHECKING

from twincast.access.request import PROXY_HEADERS, Caller, RequestFacts
from twincast.core.rights import ANYONE, Principal, Rights
from twincast.core.subscription import EVERYWHERE
from twincast.errors import NotPermitted
from twincast.later import later
from twincast.transports.answer import TEXT, Answer
from twincast.transports.asgi import Scope
from twincast.transports.operation import Call, Operation
from twincast.transports.parts import Parts

if TYPE_CHECKING:  # many servers are never scraped
    from twincast.transports import metrics
else:
    metrics = later("twincast.transports.metrics")

PATH = "/metrics"
NEIGHBOUR = Principal("neighbour", Rights(admin=EVERYWHERE))
"""A program of this machine: for this alone it needs no credential."""
STEPS = 8_000
"""What one answer costs, as steps of a search: about 2 ms."""
_OF_PROXIES = (*(name.encode() for name in PROXY_HEADERS), b"via")


def operations(parts: Parts) -> tuple[Operation, ...]:
    """Return the call that Prometheus makes every few seconds."""
    scrape = _Scrape(parts)
    return (Operation("GET", PATH, scrape.metrics, (), answer_type=TEXT, identify=scrape.neighbour),)


class _Scrape:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._admission = parts.admission

    @cached_property
    def _metrics(self) -> "metrics.Metrics":
        return metrics.Metrics(self._parts)

    def neighbour(self, scope: Scope, facts: RequestFacts) -> Caller | None:
        """Return a program of this machine as the caller; None if it has a credential, or is none of this machine.

        Raises:
            Forbidden: a Host or an Origin that is not ours.
        """
        if facts.authorization is not None or _came_by_proxy(scope):
            return None
        address = self._admission.neighbour(facts)
        return None if address is None else Caller(NEIGHBOUR, address)

    async def metrics(self, call: Call) -> Answer:
        """Return the server's numbers, as Prometheus reads them.

        Open to programs on the server's own machine; what comes by a proxy does not count as that. Others need the
        right `admin` on `*`.
        """
        principal = call.caller.principal
        if principal.id == ANYONE.id or not principal.may_everywhere("admin"):
            raise NotPermitted(f"{principal.id} has no right to admin on `*`, which this needs from another machine")
        self._admission.limits.begin_reading(call.caller).spend(STEPS)
        return Answer(self._metrics.text(), content_type=self._metrics.content_type.encode())


def _came_by_proxy(scope: Scope) -> bool:
    """Whether a request says that a proxy passed it on."""
    return any(name.lower().startswith(_OF_PROXIES) for name, _ in scope["headers"])
