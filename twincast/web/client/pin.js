const FINGERPRINT = /^sha256:([0-9a-f]{2}:?){31}[0-9a-f]{2}$/;

/**
 * Trust in one server by the SHA-256 of its public key, in Node and with the package `ws`: browsers, and Node's own
 * WebSocket, check certificates by themselves and let no page pin one.
 */
export class Pin {
  #wanted;
  #node;
  #agent;
  #isChecked = false;

  /** Why the server is not the one that is trusted; empty while nothing speaks against it. */
  problem = "";

  /**
   * @param {string} fingerprint
   * @param {string} url
   * @throws {TypeError} it is none, or the address has no TLS
   * @throws {Error} this runtime cannot pin
   */
  constructor(fingerprint, url) {
    const text = String(fingerprint).trim().toLowerCase();
    if (!FINGERPRINT.test(text)) throw new TypeError("a fingerprint is sha256: and 64 hexadecimal digits, as `twincast serve --self-signed` prints it");
    if (!/^(wss|https):/.test(url)) throw new TypeError(`a fingerprint is of a server that speaks TLS, so its address begins with wss://; not ${url}`);
    this.#wanted = text.slice("sha256:".length).replaceAll(":", "");
    const builtin = (name) => /** @type {any} */ (globalThis).process?.getBuiltinModule?.(`node:${name}`);
    this.#node = { https: builtin("https"), tls: builtin("tls"), net: builtin("net"), crypto: builtin("crypto") };
    if (!this.#node.tls) throw new Error("this runtime pins no server: a browser checks certificates by itself; Node does it from version 20.16 on, with the package `ws`");
    this.#agent = new this.#node.https.Agent({ keepAlive: false });
    this.#agent.createConnection = (options, done) => this.#connect(options, done);
  }

  /**
   * What a WebSocket of the package `ws` is opened with.
   * @throws {Error} the WebSocket of this runtime is another one, which would take no notice
   */
  begin() {
    if (typeof (/** @type {any} */ (WebSocket).prototype.on) !== "function") {
      throw new Error("a fingerprint takes the WebSocket of the package `ws`: globalThis.WebSocket = (await import(\"ws\")).WebSocket");
    }
    this.#isChecked = false;
    this.problem = "";
    return { agent: this.#agent };
  }

  /** Whether the connection that is open was held against the fingerprint. */
  get isChecked() {
    return this.#isChecked;
  }

  /**
   * Asks for a page of JSON, as `fetch` does.
   * @param {URL} address
   * @param {{method?: string, signal?: AbortSignal, headers?: Record<string, string>}} how
   * @returns {Promise<{ok: boolean, status: number, json: () => Promise<any>}>}
   */
  fetch(address, { method, signal, headers } = {}) {
    return new Promise((resolve, reject) => {
      const request = this.#node.https.request(address, { method, agent: this.#agent, signal, headers }, (response) => {
        const parts = [];
        response.on("data", (part) => parts.push(part)).on("error", reject).on("end", () => {
          const status = response.statusCode;
          resolve({ ok: status >= 200 && status < 300, status, json: async () => JSON.parse(parts.join("")) });
        });
      });
      request.on("error", reject).end();
    });
  }

  /** Shakes hands, looks at the key, and only then gives the socket to whoever has something to say on it. */
  #connect({ host, port }, done) {
    const { tls, net, crypto } = this.#node;
    const servername = net.isIP(host) ? "" : host;
    const socket = tls.connect({ host, port, servername, rejectUnauthorized: false, ALPNProtocols: ["http/1.1"], minVersion: "TLSv1.2" });
    socket.once("error", done);
    socket.once("secureConnect", () => {
      const key = socket.getPeerX509Certificate().publicKey.export({ type: "spki", format: "der" });
      const found = crypto.createHash("sha256").update(key).digest("hex");
      if (found === this.#wanted) {
        this.#isChecked = true;
        socket.off("error", done);
        done(null, socket);
        return;
      }
      this.problem = `what answers is not the server whose fingerprint you gave: sha256:${found}. If its key was made anew, give the one that it prints now; if not, somebody stands between, and nothing was sent`;
      socket.destroy(new Error(this.problem));
    });
  }
}
