// "Do you mean it?", before something is lost.

import { button, h } from "./dom.js";

// Resolves to true only when the person presses the button that says `deed`.
export function confirmed(title, words, deed) {
  const dialog = h(
    "dialog",
    { class: "dialog" },
    h(
      "form",
      { method: "dialog" },
      h("h2", {}, title),
      h("p", {}, words),
      h(
        "div",
        { class: "actions" },
        button("Keep", { type: "submit", value: "", class: "button quiet" }),
        button(deed, { type: "submit", value: "yes", class: "button danger" }),
      ),
    ),
  );
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
  });
}
