"""One thread for each connection to SQLite."""

import asyncio
import threading

from twincast.journal.sqlite.worker import Worker

TIMEOUT_S = 10


async def test_calls_are_made_one_after_the_other_in_one_thread() -> None:
    worker, threads = Worker("test"), list[str]()
    for _ in range(3):
        worker.do(lambda: threads.append(threading.current_thread().name))
    await worker.close(lambda: threads.append("last"))
    assert len(threads) == 4 and len(set(threads[:3])) == 1 and threads[3] == "last"


async def test_a_worker_that_closes_does_not_hold_up_the_loop() -> None:
    worker, may_end = Worker("test"), threading.Event()
    worker.do(may_end.wait, TIMEOUT_S)
    asyncio.get_running_loop().call_later(0.05, may_end.set)  # never called, if closing blocks the loop
    await asyncio.wait_for(worker.close(), TIMEOUT_S / 2)
    assert may_end.is_set()
