/**
 * Draws when something is to be seen: at most once a frame, and after a drawing not sooner than it has rested.
 *
 * A page that nobody sees draws nothing. There a slow timer takes the place of frames, so that what arrives is still taken.
 */

const BLIND_MS = 250; // also where a page is in sight and gets no frames, such as a frame of another page that is scrolled away

export class AnimationLoop {
  #draw;
  #restMs;
  #tasks = [];
  #request = 0;
  #timer = 0;
  #drawnAtMs = -Infinity;

  /**
   * @param {(nowMs: number) => void} draw called after the tasks of a frame
   * @param {() => number} restMs how long after a drawing the next one waits, unless somebody did something
   */
  constructor(draw, restMs) {
    this.#draw = draw;
    this.#restMs = restMs;
    document.addEventListener("visibilitychange", () => this.now());
  }

  /**
   * Runs a task and draws, once it is time for the next drawing.
   * @param {() => void} [task]
   */
  next(task) {
    if (task) this.#tasks.push(task);
    if (this.#request || this.#timer) return;
    if (document.hidden) {
      this.#timer = setTimeout(() => this.#run(), BLIND_MS);
      return;
    }
    const restMs = this.#drawnAtMs + this.#restMs() - performance.now();
    if (restMs > 0) this.#timer = setTimeout(() => this.#requestFrame(), restMs);
    else this.#requestFrame();
  }

  /** Draws in the next frame: somebody did something and wants to see it. */
  now() {
    if (document.hidden) this.next();
    else if (!this.#request) this.#requestFrame();
  }

  #requestFrame() {
    clearTimeout(this.#timer);
    if (document.hidden) {
      this.#run();
      return;
    }
    this.#request = requestAnimationFrame(() => this.#run());
    this.#timer = setTimeout(() => this.#run(), BLIND_MS);
  }

  #run() {
    cancelAnimationFrame(this.#request);
    clearTimeout(this.#timer);
    this.#request = this.#timer = 0;
    const tasks = this.#tasks;
    this.#tasks = [];
    for (const task of tasks) task();
    if (document.hidden) return;
    this.#drawnAtMs = performance.now();
    this.#draw(this.#drawnAtMs);
  }
}
