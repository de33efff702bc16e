/**
 * Draws at most once a frame, however often it is asked to.
 *
 * A page in the background gets no frames; there a slow timer takes their place, so that what arrives is still taken.
 */
export class AnimationLoop {
  #draw;
  #tasks = [];
  #request = 0;
  #timer = 0;

  /** @param {(nowMs: number) => void} draw called after the tasks of a frame */
  constructor(draw) {
    this.#draw = draw;
  }

  /**
   * Runs a task at the start of the next frame, and draws after it.
   * @param {() => void} [task]
   */
  next(task) {
    if (task) this.#tasks.push(task);
    if (this.#request) return;
    this.#request = requestAnimationFrame(() => this.#run());
    this.#timer = setTimeout(() => this.#run(), 250);
  }

  #run() {
    cancelAnimationFrame(this.#request);
    clearTimeout(this.#timer);
    this.#request = 0;
    const tasks = this.#tasks;
    this.#tasks = [];
    for (const task of tasks) task();
    this.#draw(performance.now());
  }
}
