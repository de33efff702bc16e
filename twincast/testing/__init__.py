"""Test your own devices and programs against a real server, in the same process, over a network that misbehaves.

    def test_my_device(twincast_server):
        my_device.run(twincast_server.url, count=3)
        assert len(twincast_server.log()) == 3

The fixtures `twincast_server`, `twincast_clock`, `twincast_proxy` and `twincast_nats` are there as soon as twincast is
installed beside pytest. The guide is docs/testing.md.
"""

from twincast import extras

with extras.needed("twincast.testing", "testing"):
    from twincast.testing.clock import Clock
    from twincast.testing.cluster import Cluster
    from twincast.testing.nats import Nats
    from twincast.testing.proxy import Proxy
    from twincast.testing.server import Server
    from twincast.testing.waiting import assert_converged, assert_converged_async, eventually, eventually_async

__all__ = [
    "Clock",
    "Cluster",
    "Nats",
    "Proxy",
    "Server",
    "assert_converged",
    "assert_converged_async",
    "eventually",
    "eventually_async",
]
