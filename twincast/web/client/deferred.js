/** A promise with its `resolve` and `reject`. */
export class Deferred {
  constructor() {
    /** @type {(answer: any) => void} */
    this.resolve = () => {};
    /** @type {(error: Error) => void} */
    this.reject = () => {};
    /** @type {Promise<any>} */
    this.promise = new Promise((resolve, reject) => Object.assign(this, { resolve, reject }));
  }

  /** Ends it for a reason that is the client's, of which whoever did not wait for it need not hear. */
  abandon(error) {
    this.promise.catch(() => {});
    this.reject(error);
  }
}
