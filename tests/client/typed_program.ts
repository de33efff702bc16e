// A program with types, for tests/client/test_javascript_types.py; what must not pass is marked so, and is an error if it does.
import { Client, RequestError, encode, matcherOf } from "./client.js";
import type { Control, DataUpdate, Gap, Late, Link, Message, Position, Twin } from "./client.js";

const seen: string[] = [];

function take(message: Message): void {
  if (message.type === "data_update") {
    const reading: DataUpdate = message;
    seen.push(reading.device_id, String(reading.seq + (reading.merged ?? 1)));
    // @ts-expect-error a reading has no command
    seen.push(message.command);
  } else if (message.type === "control") {
    const order: Control = message;
    seen.push(order.target, order.command, String(order.args.rpm));
  } else if (message.type === "deleted") seen.push(message.device_id);
  else if (message.type === "late") {
    const old: Late = message;
    seen.push(old.device_id, old.measured_at_utc);
  }
  else if (message.type === "ack") seen.push(String(message.id), message.epoch);
  else if (message.type === "error") seen.push(message.code, String(message.retryable));
  else if (message.type === "echo") seen.push(message.note);
  else {
    const last: "pong" = message.type;
    seen.push(last);
  }
}

export const client = new Client({
  url: "ws://127.0.0.1:8000/ws",
  devices: ["lab/*"],
  mode: "latest",
  maxHz: 10,
  since: sessionStorage.getItem("at"),
  token: async () => "twc_key",
  onMessages: (batch, at) => batch.forEach((message) => at.seq && take(message)),
  onSnapshot: (at: Position, twins: Map<string, Twin>, gap: Gap | null) => seen.push(at.epoch, String(twins.size), gap?.reason ?? ""),
  onLink: (link: Link) => seen.push(link.phase),
});

// @ts-expect-error there is no such mode
new Client({ url: "ws://127.0.0.1:8000/ws", mode: "sometimes" });
// @ts-expect-error the address is needed
new Client({ devices: ["lab/*"] });

export async function run(): Promise<number> {
  client.open();
  try {
    const { seq } = await client.publish("lab/lamp", { on: true });
    await client.publish("lab/lamp", { on: false }, { measuredAt: new Date() });
    await client.publish("lab/lamp", { on: false }, { measuredAt: "2026-11-27T04:16:10Z" });
    // @ts-expect-error a number says no instant
    await client.publish("lab/lamp", 1, { measuredAt: 1_764_216_970 });
    await client.control("lab/fan", "start", { rpm: 900 });
    const past = await client.history("lab/motor", { from: new Date(), every: "1h", agg: ["avg", "max"], path: "/rpm" });
    const then = await client.stateAt(client.position, ["lab/*"]);
    const many = await client.history(["lab/*"], { limit: 10, signal: AbortSignal.timeout(1_000) });
    seen.push(...(many.devices ?? []).flatMap(({ device_id, entries }) => entries.map(({ seq }) => `${device_id} ${seq}`)));
    // @ts-expect-error the past of several devices is by device
    seen.push(many.entries);
    // @ts-expect-error there is no such way to fill
    await client.history("lab/motor", { fill: "zero" });
    const gone = await client.deleteHistory("lab/motor");
    seen.push(String(gone.event.seq), String(past.avg), String(then.data["lab/motor"]?.seq));
    await client.subscribe({ devices: ["x"], mode: "every" });
    return seq + client.position.seq + (client.twins.get("lab/lamp")?.seq ?? 0) + (client.limits?.messageMaxBytes ?? 0);
  } catch (error) {
    if (error instanceof RequestError) seen.push(error.code, encode(1), String(matcherOf(["a"])("a")));
    throw error;
  }
}
