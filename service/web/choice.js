// One of a few, shown as pills: a radio group underneath, so that arrow keys and screen readers work as everywhere.

import { h, icon, uniqueId } from "./dom.js";

// `entries`: [{ value, words, symbol?, faint? }]. -> { element, value, select(value) }
export function pills(legend, entries, onChange) {
  const group = uniqueId("choice");
  const inputs = new Map();
  const labels = entries.map(({ value, words, symbol, faint }) => {
    const input = h("input", { type: "radio", name: group, value, class: "unseen", onchange: () => onChange(value) });
    inputs.set(value, input);
    return h("label", { class: faint ? "pill faint" : "pill" }, input, symbol && icon(symbol), words);
  });
  return {
    element: h("fieldset", { class: "pills" }, h("legend", {}, legend), h("div", { class: "pill-row" }, labels)),
    get value() {
      return [...inputs.values()].find((input) => input.checked)?.value ?? null;
    },
    select(value) {
      if (inputs.has(value)) inputs.get(value).checked = true;
    },
  };
}
