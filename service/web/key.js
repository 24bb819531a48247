// The caller's key, for services that ask for one. It lives in this module only: a reload forgets it.

import { button, field, h } from "./dom.js";

let key = null;
let asking = null;

export function rememberedKey() {
  return key;
}

// Asks once for all calls that wait. Resolves to false when the person declines.
export function askForKey() {
  asking ??= openDialog().finally(() => {
    asking = null;
  });
  return asking;
}

function openDialog() {
  const again = key === null ? "" : "The key was not accepted. ";
  const input = h("input", { type: "password", autocomplete: "off", required: true });
  const form = h(
    "form",
    {
      method: "dialog",
      onsubmit: () => {
        key = input.value.trim();
      },
    },
    h("h2", {}, "This service asks for a key"),
    field("Key", input, `${again}Sent to this service only, and forgotten when the page is closed.`),
    h(
      "div",
      { class: "actions" },
      button("Cancel", { class: "button quiet", onclick: () => dialog.close() }),
      button("Use key", { type: "submit", value: "use", class: "button primary" }),
    ),
  );
  const dialog = h("dialog", { class: "dialog" }, form);
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "use");
    });
  });
}
