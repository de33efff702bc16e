"""The least that uWebSockets can do here: every message goes to everyone."""

import sys
from typing import Any

from socketify import App, AppListenOptions, CompressOptions, OpCode

app = App()


def on_open(socket: Any) -> None:
    socket.subscribe("bench")
    socket.send('{"type":"hello"}', OpCode.TEXT)


def on_message(socket: Any, message: str, opcode: int) -> None:
    socket.publish("bench", message, OpCode.TEXT)


app.ws(
    "/ws",
    {
        "compression": CompressOptions.DISABLED,
        "max_payload_length": 64 * 1024,
        "max_backpressure": 64 * 1024 * 1024,
        "idle_timeout": 120,
        "open": on_open,
        "message": on_message,
    },
)
app.listen(AppListenOptions(port=int(sys.argv[1]), host="127.0.0.1"), lambda config: None)
app.run()
