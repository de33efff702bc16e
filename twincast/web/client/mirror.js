/**
 * The newest state of every device as this client received it, and the cursor, which moves only with what was delivered in order.
 *
 * An acknowledgement does not move it: it says where the sender's own update is, not what the sender has received.
 */
export class Mirror {
  #fresh = null; // the parts of a state that is not whole yet
  #added = null; // the same, of devices that a subscription has added
  #gap = null;
  #isUnreadable; // where it was before is not known any more
  #known = null; // up to where in which log the state is, where it was asked for ahead of the cursor

  /** @param {import("./messages.js").Position|"unreadable"|null} [since] where somebody else left off */
  constructor(since = null) {
    this.#isUnreadable = since === "unreadable";
    /** Whether there is a position and no state: the state is to be asked for, before what came since the position. */
    this.lacksState = since !== null && !this.#isUnreadable;

    /** @type {Map<string, import("./messages.js").Twin>} */
    this.twins = new Map();
    /** @type {import("./messages.js").Position} */
    this.position = since && since !== "unreadable" ? since : { epoch: "", seq: 0 };
  }

  /** Begins a connection: what came in part on the one before counts for nothing. */
  begin() {
    this.#fresh = this.#added = this.#gap = null;
  }

  /**
   * Goes on where it was; a server that has started again says so by another epoch.
   * @returns {boolean} whether that can be: a state that was asked for ahead is one of the same run, or nothing says what is in it
   */
  resume({ epoch }) {
    if (this.#known && this.#known.seq <= this.position.seq) this.#known = null;
    this.lacksState = this.#known !== null && this.#known.epoch !== epoch;
    if (!this.lacksState) this.position = { epoch, seq: this.position.seq };
    return !this.lacksState;
  }

  /** Begins anew with what a `hello` or a `gap` announces. */
  replace(message) {
    if (message.type === "gap") this.#gap = { from: message.from, to: message.to, reason: "too_old" };
    else if (this.#isUnreadable) this.#gap = gapOf({ reason: "unreadable", seq: message.seq }, 0);
    else if (this.position.epoch && !this.lacksState) this.#gap = gapOf(message, this.position.seq);
    this.#fresh = new Map();
    this.#added = null;
  }

  /**
   * Takes a part of the state.
   * @returns {{gap: import("./messages.js").Gap|null}|null} null as long as it is not whole
   */
  take({ data_snapshot: twins, more, epoch, seq }, selects) {
    const into = this.#fresh ?? (this.#added ??= new Map());
    for (const [id, twin] of Object.entries(twins)) if (selects(id)) into.set(id, twin);
    if (more) return null;
    if (this.#fresh) this.twins = this.#fresh;
    else for (const [id, twin] of this.#added) this.twins.set(id, twin);
    const gap = this.#gap;
    if (this.lacksState) this.#known = { epoch, seq };
    else {
      this.position = { epoch, seq: this.#fresh ? seq : Math.max(seq, this.position.seq) };
      if (this.#fresh) this.#known = null;
      this.#isUnreadable = false;
    }
    this.begin();
    return { gap };
  }

  /** Takes note that the state is there; from now on it goes on from the position. */
  knowState() {
    this.lacksState = false;
  }

  /** Takes one change. @param {any} change */
  fold({ type, device_id: deviceId, value, timestamp_utc, source, seq, ...said }) {
    if (this.#known && seq <= this.#known.seq) return; // the state has it
    const twins = this.#fresh ?? this.twins;
    if (type === "data_update") twins.set(deviceId, { value, updated_at_utc: timestamp_utc, source, seq, ...whenOf(said) });
    else if (type === "deleted") twins.delete(deviceId);
  }

  /** Moves the cursor to where a change or a `pong` says that everything before has come. */
  reach({ epoch = this.position.epoch, seq }) {
    if (this.#fresh || this.#added || epoch !== this.position.epoch) return;
    if (seq > this.position.seq) this.position = { epoch, seq };
  }

  /** Forgets the devices that are followed no longer. @returns {boolean} whether there were any */
  keep(covers) {
    const before = this.twins.size;
    for (const id of this.twins.keys()) if (!covers(id)) this.twins.delete(id);
    return this.twins.size < before;
  }
}

/** When a reading was measured, as far as it is said. @param {{measured_at_utc?: string, clock?: "off"}} said */
function whenOf({ measured_at_utc, clock }) {
  return { ...(measured_at_utc !== undefined && { measured_at_utc }), ...(clock !== undefined && { clock }) };
}

/** What may be missing where a client could not go on. Numbers of another log are no numbers of the one that it knew. */
function gapOf({ reason = "epoch", seq = 0 }, since) {
  const isSameLog = reason === "too_old";
  return { from: isSameLog ? since + 1 : Math.min(1, seq), to: seq, reason };
}

/** Whether what brings the state has what it takes. */
export function isWhole({ type, epoch, seq, data_snapshot: twins }) {
  if (type === "gap") return true;
  return typeof epoch === "string" && Number.isInteger(seq) && typeof twins === "object" && twins !== null && !Array.isArray(twins);
}
