// Durable Streams' reference server, on files: an append is answered after its `fdatasync`.
import { DurableStreamTestServer } from "@durable-streams/server"

const [port, dataDir] = process.argv.slice(2)
await new DurableStreamTestServer({ port: Number(port), host: "127.0.0.1", dataDir, compression: false }).start()
