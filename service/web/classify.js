// The first view: a file and some labels in, the labels with bars out.

import { api, Problem } from "./api.js";
import { bars } from "./bars.js";
import { button, field, fill, h } from "./dom.js";
import { firstLabels } from "./kinds.js";
import { emptyNotice, problemNotice, waiting } from "./notice.js";
import { createPicker } from "./picker.js";
import { recall, remember } from "./remember.js";
import { labelsOf } from "./words.js";

export function createClassify(view, modalities, { searchWith }) {
  const labels = h("textarea", { rows: 9, spellcheck: "false", autocomplete: "off" });
  const submit = button("Classify", { type: "submit", class: "button primary" });
  const result = h("div", { class: "result", "aria-live": "polite" });
  const picker = createPicker({ modalities, title: "Drop a file here", onChange: (chosen) => changed(chosen) });
  let turn = 0;

  const changed = (chosen) => {
    turn += 1; // An answer that is still on its way belongs to the file before.
    submit.disabled = !chosen;
    if (!chosen) {
      showEmpty();
      return;
    }
    labels.value = recall(`labels.${chosen.modality.name}`, firstLabels(chosen.modality.kind).join("\n"));
    run();
  };

  const showEmpty = () =>
    fill(result, emptyNotice("Nothing to weigh yet", "Drop a file: its labels appear here, the best one first."));

  const run = async () => {
    const { modality } = picker.chosen;
    const words = labelsOf(labels.value);
    remember(`labels.${modality.name}`, words.join("\n"));
    const mine = (turn += 1);
    result.setAttribute("aria-busy", "true");
    fill(result, waiting("Classifying…", Math.min(words.length, 6)));
    const shown = await answer(modality, words, picker.form()).catch(problemNotice);
    if (mine !== turn) return;
    result.removeAttribute("aria-busy");
    fill(result, shown);
  };

  const answer = async (modality, words, form) => {
    if (words.length === 0)
      throw new Problem({
        title: "No labels",
        detail: "Write at least one label, one a line or divided by commas.",
        code: "no_labels",
      });
    words.forEach((word) => form.append("labels", word));
    const { items } = await api.classify(modality.name, form);
    return [
      ...(items[0].unknown ? [h("p", { class: "hint", role: "status" }, "Probably none of these labels: even the best one is unlike the file.")] : []),
      bars(items[0].labels),
      h(
        "p",
        { class: "hint" },
        "The percentage weighs these labels against each other; the number beside it is the similarity of the file to the label itself.",
      ),
      button("Search a collection with this file", { class: "button quiet", onclick: () => searchWith(picker.chosen) }, "search"),
    ];
  };

  const form = h(
    "form",
    { class: "panel" },
    field("Labels", labels, "One a line, or divided by commas."),
    h("div", { class: "actions" }, submit),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (picker.chosen) run();
  });
  labels.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });

  fill(
    view,
    h(
      "header",
      { class: "view-head" },
      h("h1", { id: "classify-title" }, "What is it?"),
      h(
        "p",
        { class: "lead" },
        "Give a picture, a clip or a sound, and the words it might be. The model says how well each word fits.",
      ),
    ),
    h("div", { class: "two" }, h("div", { class: "column" }, picker.element), h("div", { class: "column" }, form, result)),
  );
  submit.disabled = true;
  showEmpty();
  labels.value = firstLabels("image").join("\n");
  return { take: (files) => picker.take(files) };
}
