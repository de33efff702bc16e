/** What happens to some devices from a position on: every event once, over a connection of its own. Does not use the document. */

import { exactly } from "./past.js";

const KINDS = ["data_update", "late", "control", "deleted"];

export class Feed {
  #client;
  #isClosed = false;

  /**
   * @param {(options: object) => import("./client.js").Client} follow makes a client with this page's credential
   * @param {object} from
   * @param {string[]} from.devices
   * @param {{epoch: string, seq: number}} from.at
   * @param {object} callbacks
   * @param {(messages: object[]) => void} callbacks.onMessages in order; a late one may come again after a lost connection
   * @param {() => void} callbacks.onGap events may be missing, and nothing more comes
   * @param {(reason: string) => void} callbacks.onRefused
   */
  constructor(follow, { devices, at }, { onMessages, onGap, onRefused }) {
    const unlessClosed = (call) => (...told) => this.#isClosed || call(...told);
    this.#client = follow({
      devices: devices.map(exactly),
      kinds: KINDS,
      mode: "every",
      since: at,
      onMessages: unlessClosed(onMessages),
      onSnapshot: unlessClosed((_at, _twins, gap) => gap && onGap()),
      onLink: ({ phase, reason }) => {
        if (this.#isClosed) this.close();
        else if (phase === "refused") onRefused(reason);
      },
    });
    this.#client.open();
  }

  /** Ends it. Browsers complain of a connection that is closed before it is open, so that is waited for. */
  close() {
    this.#isClosed = true;
    const { phase } = this.#client.link;
    if (phase !== "connecting" && phase !== "closed") this.#client.close();
  }
}
