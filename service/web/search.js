// The question to a collection: words, or a file, and which modality to look among.

import { api, Problem } from "./api.js";
import { pills } from "./choice.js";
import { button, fill, h, icon } from "./dom.js";
import { createPicker } from "./picker.js";
import { recall, remember } from "./remember.js";

const COUNTS = [5, 10, 25, 50, 100];

// `onQuery(query, words)`: a body for /v1/collections/{c}/search, or a promise of one, and what was asked in words.
// -> { element, takeFile(chosen) }
export function createSearch(modalities, onQuery) {
  const words = h("input", {
    type: "search",
    placeholder: "a dog barking",
    "aria-label": "Search for",
    autocomplete: "off",
    enterkeyhint: "search",
  });
  const among = h(
    "select",
    { "aria-label": "Look among" },
    h("option", { value: "" }, "everything"),
    modalities.map((one) => h("option", { value: one.name }, one.name)),
  );
  const count = h(
    "select",
    { "aria-label": "How many hits" },
    COUNTS.map((n) => h("option", { value: n }, `${n} hits`)),
  );
  count.value = recall("top_k", "10");
  const picker = createPicker({ modalities, title: "Drop a file to search with", onChange: () => {} });
  const place = h("div", { class: "search-with" });
  const by = pills(
    "Search with",
    [
      { value: "words", words: "words", symbol: "text" },
      { value: "file", words: "a file", symbol: "file" },
    ],
    () => show(),
  );

  const show = () => {
    const file = by.value === "file";
    fill(place, file ? picker.element : h("div", { class: "search-box" }, icon("search"), words));
  };

  const common = () => ({ top_k: Number(count.value), ...(among.value ? { modality: among.value } : {}) });

  const ask = () => {
    remember("top_k", count.value);
    if (by.value === "words") {
      onQuery(byWords(words.value.trim()), `“${words.value.trim()}”`);
    } else {
      onQuery(byFile(), picker.chosen?.file.name ?? "");
    }
  };

  const byWords = async (text) => {
    if (!text)
      throw new Problem({ title: "Nothing to search for", detail: "Write a few words, or choose a file.", code: "no_query" });
    return { text, ...common() };
  };

  // The file's own modality and the one to look among are two things: its vector is asked for first, then searched with.
  const byFile = async () => {
    if (!picker.chosen)
      throw new Problem({ title: "Nothing to search with", detail: "Drop a file, or choose one.", code: "no_query" });
    const { items } = await api.embed(picker.chosen.modality.name, picker.form());
    return { vector: items[0].embedding, ...common() };
  };

  by.select("words");
  show();
  const element = h(
    "form",
    { class: "panel search", role: "search" },
    by.element,
    place,
    h(
      "div",
      { class: "search-row" },
      h("label", {}, "among", among),
      count,
      button("Search", { type: "submit", class: "button primary" }),
    ),
  );
  element.addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });

  return {
    element,
    takeFile({ file, modality }) {
      by.select("file");
      show();
      picker.take([file], modality);
    },
    bySimilar: (item) => ({ item: item.id, ...common() }),
  };
}
