/** The rate of messages: now, and over the last minute. */

export const SLOT_MS = 500;
export const SLOTS = 120;
const AVERAGED_SLOTS = 4;

export class MessageRate {
  #counts = new Float64Array(SLOTS);
  #slot = 0;

  /**
   * Counts messages.
   * @param {number} nowMs
   * @param {number} count
   */
  add(nowMs, count) {
    this.#turn(nowMs);
    this.#counts[this.#slot % SLOTS] += count;
  }

  /** @param {number} nowMs @returns {number} which slot fills at that time */
  slotAt(nowMs) {
    return Math.floor(nowMs / SLOT_MS);
  }

  /** @param {number} nowMs @returns {number} messages per second, over the last two seconds that are complete */
  perSecond(nowMs) {
    this.#turn(nowMs);
    let sum = 0;
    for (let back = 1; back <= AVERAGED_SLOTS; back += 1) sum += this.#counts[(this.#slot - back + SLOTS) % SLOTS];
    return sum / ((AVERAGED_SLOTS * SLOT_MS) / 1000);
  }

  /**
   * Visits the rates of the last minute, oldest first; the slot that still fills is left out.
   * @param {number} nowMs
   * @param {(perSecond: number, slot: number) => void} visit
   */
  each(nowMs, visit) {
    this.#turn(nowMs);
    for (let slot = this.#slot - SLOTS + 1; slot < this.#slot; slot += 1) {
      visit(this.#counts[(slot + SLOTS) % SLOTS] * (1000 / SLOT_MS), slot);
    }
  }

  #turn(nowMs) {
    const slot = this.slotAt(nowMs);
    const steps = Math.min(slot - this.#slot, SLOTS);
    for (let step = 0; step < steps; step += 1) this.#counts[(slot - step) % SLOTS] = 0;
    this.#slot = Math.max(slot, this.#slot);
  }
}
