/** A list of any length on a few elements: those in sight, each reused for another item when it leaves. */

const OVERSCAN_ROWS = 4;

/**
 * @template T
 * @typedef {{element: HTMLElement, index: number, item: T|null}} Row what `make` returns; more may be in it
 */

export class VirtualList {
  #scroller;
  #body;
  #make;
  #fill;
  #onNeed;
  #pool = [];
  #scrollTop = 0;
  #viewHeight = 0;
  #headHeight = 0;
  #bodyHeight = -1;
  #rowHeight = 0;
  #revealing = -1;

  /**
   * @param {object} options
   * @param {HTMLElement} options.scroller
   * @param {HTMLElement} options.body inside the scroller; as high as all rows together
   * @param {() => Row<T>} options.make
   * @param {(row: Row<T>, item: T, index: number) => void} options.fill brings a row up to date with its item; called for
   *   every row in sight at every drawing, so it has to check by itself whether there is anything to do
   * @param {() => void} options.onNeed asks for a drawing: the part in sight has changed
   */
  constructor({ scroller, body, make, fill, onNeed }) {
    this.#scroller = scroller;
    this.#body = body;
    this.#make = make;
    this.#fill = fill;
    this.#onNeed = onNeed;
    scroller.addEventListener("scroll", () => {
      this.#scrollTop = scroller.scrollTop;
      onNeed();
    }, { passive: true });
    new ResizeObserver(() => this.#measure()).observe(scroller);
    this.#measure();
  }

  get scrollTop() {
    return this.#scrollTop;
  }

  /** How many rows fit at once. */
  get pageRows() {
    return Math.max(1, Math.floor((this.#viewHeight - this.#headHeight) / this.#rowHeight));
  }

  /**
   * Shows the part of the items that is in sight.
   * @param {number} count
   * @param {(index: number) => T} itemAt
   * @param {number} [putBeforeCount] how many items were put before the first one so far: rows then move with their items,
   *   and only those of new items are filled
   */
  draw(count, itemAt, putBeforeCount = 0) {
    const bodyHeight = count * this.#rowHeight;
    if (bodyHeight !== this.#bodyHeight) {
      this.#bodyHeight = bodyHeight;
      this.#body.style.height = `${bodyHeight}px`;
    }
    if (this.#revealing >= 0) this.#scrollTo(Math.min(this.#revealing, count - 1));
    const size = this.#grow(Math.ceil(this.#viewHeight / this.#rowHeight) + 2 * OVERSCAN_ROWS);
    const bottom = Math.max(0, count - size);
    const first = Math.min(bottom, Math.max(0, Math.floor(this.#scrollTop / this.#rowHeight) - OVERSCAN_ROWS));
    for (let index = first; index < first + size; index += 1) {
      const row = this.#pool[modulo(index - putBeforeCount, size)];
      if (index >= count) {
        this.#put(row, -1);
        row.item = null; // what is no longer shown must not be kept in memory
      } else {
        this.#put(row, index);
        const item = itemAt(index);
        this.#fill(row, item, index);
        row.item = item;
      }
    }
  }

  /** Shows the first item, from the next drawing on. */
  toTop() {
    this.#scroller.scrollTop = this.#scrollTop = 0;
  }

  /**
   * Brings a row into sight at the next drawing: by as little as does it, or into the middle if it is further than a page away.
   * @param {number} index
   */
  reveal(index) {
    this.#revealing = index;
    this.#onNeed();
  }

  #scrollTo(index) {
    this.#revealing = -1;
    const room = this.#viewHeight - this.#headHeight;
    const top = index * this.#rowHeight;
    const bottom = top + this.#rowHeight - room;
    const now = this.#scrollTop;
    if (bottom <= now && now <= top) return;
    const isFar = bottom > now + room || top < now - room;
    this.#scroller.scrollTop = isFar ? (top + bottom) / 2 : now > top ? top : bottom;
    this.#scrollTop = this.#scroller.scrollTop;
  }

  #put(row, index) {
    if (row.index === index) return;
    row.index = index;
    row.element.hidden = index < 0;
    if (index >= 0) row.element.style.transform = `translateY(${index * this.#rowHeight}px)`;
  }

  #grow(size) {
    if (this.#pool.length !== size) {
      while (this.#pool.length > size) this.#pool.pop().element.remove();
      while (this.#pool.length < size) {
        const row = this.#make();
        this.#body.append(row.element);
        this.#pool.push(row);
      }
    }
    return size;
  }

  #measure() {
    this.#viewHeight = this.#scroller.clientHeight;
    this.#scrollTop = this.#scroller.scrollTop;
    this.#headHeight = this.#body.offsetTop;
    const rowHeight = parseFloat(getComputedStyle(this.#body).getPropertyValue("--row-height"));
    if (rowHeight !== this.#rowHeight) {
      this.#rowHeight = rowHeight;
      for (const row of this.#pool) row.index = -2; // every place is another one now
    }
    this.#onNeed();
  }
}

/** The remainder that is not negative. */
function modulo(number, size) {
  return ((number % size) + size) % size;
}
