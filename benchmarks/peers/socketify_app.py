"""The least that uWebSockets can do here: every message goes to all; one that only publishes has a path of its own."""

import sys
from typing import Any

from socketify import App, AppListenOptions, CompressOptions, OpCode

app = App()


def on_open(socket: Any) -> None:
    socket.subscribe("bench")
    socket.send('{"type":"hello"}', OpCode.TEXT)


def on_publisher(socket: Any) -> None:
    socket.send('{"type":"hello"}', OpCode.TEXT)


def on_message(socket: Any, message: str, opcode: int) -> None:
    socket.publish("bench", message, OpCode.TEXT)


settings = {
    "compression": CompressOptions.DISABLED,
    "max_payload_length": 64 * 1024,
    "max_backpressure": 64 * 1024 * 1024,
    "idle_timeout": 120,
    "message": on_message,
}
app.ws("/ws", {**settings, "open": on_open})
app.ws("/publish", {**settings, "open": on_publisher})
app.listen(AppListenOptions(port=int(sys.argv[1]), host="127.0.0.1"), lambda config: None)
app.run()
