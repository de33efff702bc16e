/** Where this server is, as this page was reached: an application or a proxy may have it below a path. */

const { origin, pathname } = new URL(".", document.baseURI);

/** The path before everything of this server's, without a slash at its end; whatever a shell would take for its own is encoded. */
export const PREFIX = pathname.replace(/\/$/, "").replace(/[^\w.~:/%@-]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`);

/** The server's address, as clients and commands take it. */
export const HERE = origin + PREFIX;
