/** The few words with which the modules make and find elements. Text enters the page here, and only as text. */

/**
 * Finds an element that the page is known to have.
 * @param {string} id
 * @returns {any}
 */
export function byId(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`the page has no #${id}`);
  return element;
}

/**
 * Makes an element.
 * @param {string} tag
 * @param {string} [className]
 * @param {string|(Node|string)[]} [content] text, or children
 * @returns {any}
 */
export function make(tag, className = "", content = []) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...(Array.isArray(content) ? content : [content]));
  return element;
}

/**
 * Sets an element's text, if it is another.
 * @param {Node & {shown?: string}} element
 * @param {string} text
 */
export function say(element, text) {
  if (element.shown === text) return; // reading `textContent` walks the tree; the own note does not
  element.shown = text;
  const { firstChild } = element;
  const isText = firstChild instanceof Text && firstChild === element.lastChild;
  if (isText && text) firstChild.data = text; // another text for the same node costs half of another node
  else element.textContent = text;
}

/**
 * Sets a sentence of the server's: it begins large, and what stands between backticks is code.
 * @param {Element} element
 * @param {string} text
 */
export function saySentence(element, text) {
  const parts = (text && text[0].toUpperCase() + text.slice(1)).split("`");
  element.replaceChildren(...parts.map((part, index) => (index % 2 ? make("code", "", part) : part)));
}

/**
 * Puts another symbol into a button.
 * @param {Element} button
 * @param {string} name of a symbol in icons.svg
 */
export function setIcon(button, name) {
  button.querySelector("use").setAttribute("href", `dashboard/icons.svg#${name}`);
}

/**
 * Copies text, and shows at the button that it is done.
 * @param {Element} button
 * @param {string} text
 */
export async function copyFrom(button, text) {
  await writeClipboard(text);
  if (button.dataset.done) return;
  const use = button.querySelector("use");
  const before = use?.getAttribute("href");
  button.dataset.done = "true";
  if (use) setIcon(button, "check");
  setTimeout(() => {
    delete button.dataset.done;
    if (use) use.setAttribute("href", before);
  }, 1200);
}

/** Browsers give the clipboard to pages over https and from this machine only, and if they may; elsewhere the old way still works. */
async function writeClipboard(text) {
  const isWritten = await navigator.clipboard?.writeText(text).then(() => true, () => false);
  if (isWritten) return;
  const area = make("textarea", "visually-hidden", text);
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}
