/** The server's address, as this page was reached: an application or a proxy may have it below a path. */

const { origin, pathname } = new URL(".", document.baseURI);

/** The path before all of the server's paths, without a slash at its end; characters with a meaning in a shell are encoded. */
export const SERVER_PATH = pathname.replace(/\/$/, "").replace(/[^\w.~:/%@-]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`);

/** The server's address, as clients and commands take it. */
export const SERVER_URL = origin + SERVER_PATH;
