/**
 * Calls a function of the user. What it throws, or rejects with, is reported to the user, and does not end the client.
 * @param {(...what: any[]) => any} callback
 * @param {...any} what
 */
export function call(callback, ...what) {
  try {
    callback(...what)?.catch?.(report);
  } catch (error) {
    report(error);
  }
}

/** Reports an error as the runtime reports those that nothing catches. @param {any} error */
export function report(error) {
  if (globalThis.reportError) globalThis.reportError(error);
  else console.error(error);
}
