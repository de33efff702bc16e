"""The Autobahn cases for RFC 6455 against one server, as lines of JSON: `python -m tests.conformance PORT`.

A program of its own, because the cases are run by a library that ends its process with it, now and then.
"""

import asyncio
import json
import sys

import kosoku

COMPRESSION = ["12.*", "13.*"]
"""Cases that do not apply: no compression is ever agreed on."""


async def main(port: int) -> None:
    """Run all cases that apply, and print how each ended."""
    try:
        results = await kosoku.run_fuzzingclient(f"ws://127.0.0.1:{port}/ws", exclude_cases=COMPRESSION, concurrency=4)
    except kosoku.FailureError as failure:
        results = failure.results
    for result in results:
        print(json.dumps([result.case_id, result.behavior.value, result.behavior_close.value]))
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
