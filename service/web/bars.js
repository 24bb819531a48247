// Labels with bars, best first.

import { h } from "./dom.js";

const percent = new Intl.NumberFormat("en", { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });

// `labels`: [{ label, probability, similarity }] in the service's order.
export function bars(labels) {
  return h("ol", { class: "bars" }, labels.map(bar));
}

function bar({ label, probability, similarity }, place) {
  const share = h("div", { class: "bar-fill" });
  share.style.inlineSize = `${(100 * probability).toFixed(2)}%`;
  const meter = h(
    "div",
    {
      class: "bar",
      role: "meter",
      "aria-label": label,
      "aria-valuemin": 0,
      "aria-valuemax": 100,
      "aria-valuenow": (100 * probability).toFixed(1),
      "aria-valuetext": percent.format(probability),
    },
    share,
  );
  return h(
    "li",
    { class: place === 0 ? "bar-row best" : "bar-row" },
    h("span", { class: "bar-label" }, label),
    h("span", { class: "bar-number" }, percent.format(probability)),
    meter,
    h("span", { class: "bar-similarity", title: "Cosine between the file's vector and the label's" }, similarity.toFixed(3)),
  );
}
