/** The keyboard shortcuts of the page; those of the table, the tabs and the forms are in their modules. */

import { byId } from "./dom.js";

/** @param {object} parts of the page that shortcuts reach */
export function listenToKeyboard({ detail, wall, forms, logView, table, showView, filterDevices }) {
  const filter = byId("filter");
  const actions = {
    "/": () => { wall.close(); showView("devices"); filter.select(); filter.focus(); },
    c: () => byId("wall-open").click(),
    s: () => { detail.close(); wall.close(); showView("send"); forms.edit("telemetry"); },
    p: () => logView.togglePause(),
    t: () => byId("theme").click(),
    "?": () => byId("help").showModal(),
  };
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.key === "Escape") escape(event);
    else if (!isEditing(event.target) && Object.hasOwn(actions, event.key)) {
      event.preventDefault();
      actions[event.key]();
    }
  });
  filter.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown" && event.key !== "Enter") return;
    event.preventDefault();
    table.focus();
  });

  function escape(event) {
    if (wall.isOpen) wall.close();
    else if (event.target === filter || (filter.value && !detail.isOpen)) {
      filter.value = "";
      filterDevices("");
      table.focus();
    } else if (detail.isOpen) detail.close();
    else if (isEditing(event.target)) event.target.blur();
  }
}

function isEditing(element) {
  return element instanceof HTMLElement && element.matches("input, textarea, select");
}
