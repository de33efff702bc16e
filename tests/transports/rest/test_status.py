"""REST: the status, in the order of the struct that documents it."""

import httpx

from twincast.testing import Server
from twincast.transports.rest.status import Status


def test_the_status_has_the_fields_of_its_shape_in_their_order() -> None:
    with Server() as server:
        status = httpx.get(f"{server.url}/api/status").json()
    others = {"problem", "servers", "as_of_utc"}  # of a server that is not well, and of a log that is shared
    assert list(status) == [name for name in Status.__struct_fields__ if name not in others]
    assert (status["ok"], status["journal"], status["devices_known"]) == (True, "memory:", 0)
