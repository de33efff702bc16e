"""A NATS that takes only small messages: what must be stored whole is refused with words, all else is split."""

import asyncio

import httpx
import pytest

from twincast.cluster import configuration
from twincast.testing import Cluster

KIB = 1024


async def test_what_nats_takes_bounds_a_body_and_many_small_ones_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuration, "MAX_PAYLOAD_BYTES", 256 * KIB)
    cluster = await asyncio.to_thread(Cluster, 1)
    try:
        assert f"may have {192 * KIB} bytes here" in cluster.output(0)
        async with httpx.AsyncClient(base_url=cluster.url(0), timeout=60) as client:
            batch = [{"device_id": f"d{i}", "value": "x" * 1_000} for i in range(150)]
            assert (await client.post("/api/data", json=batch)).status_code == 200
            refused = await client.post("/api/data", json=batch * 2)
            assert refused.status_code == 413
            assert "NATS" in refused.json()["detail"]
            posts = [client.post("/api/data", json=batch[:50]) for _ in range(20)]  # a megabyte at once
            assert {answer.status_code for answer in await asyncio.gather(*posts)} == {200}
        assert cluster.status(0)["seq"] == 150 + 20 * 50
    finally:
        await asyncio.to_thread(cluster.close)
