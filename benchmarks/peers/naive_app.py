"""A live backend as FastAPI tutorials write it."""

from datetime import datetime, timezone
from typing import Any

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

app = FastAPI()
clients: set[WebSocket] = set()
state: dict[str, Any] = {}


def now() -> str:
    return datetime.now(timezone.utc).isoformat()  # noqa: UP017


async def broadcast(message: dict[str, Any]) -> None:
    for client in list(clients):
        try:
            await client.send_json(message)
        except Exception:
            clients.discard(client)


@app.websocket("/ws")
async def websocket_endpoint(websocket: WebSocket) -> None:
    await websocket.accept()
    if websocket.query_params.get("devices") != "":  # the one thing that tutorials do not show: who only publishes
        clients.add(websocket)
    await websocket.send_json({"type": "hello", "message": "connected", "timestamp_utc": now(), "data_snapshot": state})
    try:
        while True:
            message = await websocket.receive_json()
            if message["type"] == "telemetry":
                device_id, value = message["device_id"], message["value"]
                state[device_id] = {"value": value, "updated_at_utc": now()}
                await broadcast(
                    {
                        "type": "data_update",
                        "device_id": device_id,
                        "value": value,
                        "timestamp_utc": now(),
                        "source": "websocket",
                    }
                )
    except WebSocketDisconnect:
        clients.discard(websocket)
