// Files on their way into a collection: a list of what will be read as what, then each one's outcome.

import { api } from "./api.js";
import { acceptOf } from "./picker.js";
import { button, field, fill, h, icon, iconButton } from "./dom.js";
import { dropZone, acceptDrops } from "./drop.js";
import { suggest } from "./kinds.js";
import { keepPreview } from "./previews.js";
import { countWords, sizeWords } from "./words.js";

const AT_ONCE = 3;

// `onAdded()` is called after a batch in which something was added. -> { element, take(files) }
export function createAdding(collection, modalities, onAdded) {
  const media = modalities.filter((modality) => modality.kind !== "text");
  const list = h("ul", { class: "queue" });
  const progress = h("progress", { max: 1, value: 0, "aria-label": "Files added", hidden: true });
  const told = h("p", { class: "hint", role: "status" });
  const start = button("Add", { class: "button primary", hidden: true, onclick: () => run() });
  const note = h("input", { type: "text", maxlength: 500, autocomplete: "off" });
  const noteField = field("Note", note, "Optional: kept with each of these files and shown with its hits.");
  noteField.hidden = true;
  let rows = [];

  const take = (files) => {
    rows = rows.filter((row) => row.state !== "added");
    rows.push(...files.map((file) => createRow(file, media, (row) => leave(row))));
    told.textContent = "";
    show();
  };

  const leave = (row) => {
    rows = rows.filter((other) => other !== row);
    show();
  };

  const show = () => {
    const waiting = rows.filter((row) => row.state !== "added");
    fill(
      list,
      rows.map((row) => row.element),
    );
    noteField.hidden = start.hidden = waiting.length === 0;
    start.textContent = `Add ${countWords(waiting.length, "file")}`;
  };

  const run = async () => {
    const waiting = rows.filter((row) => row.state !== "added");
    start.disabled = true;
    progress.hidden = false;
    progress.max = waiting.length;
    progress.value = 0;
    const todo = [...waiting];
    const work = async () => {
      for (let row = todo.shift(); row; row = todo.shift()) {
        await addOne(collection, row, note.value.trim());
        progress.value += 1;
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    const added = waiting.filter((row) => row.state === "added").length;
    const failed = waiting.length - added;
    start.disabled = false;
    progress.hidden = true;
    told.textContent = `${countWords(added, "file")} added${failed ? `, ${failed} not added` : ""}.`;
    show();
    if (added > 0) onAdded();
  };

  const zone = dropZone({
    title: "Drop files to add",
    words: "as many as you like",
    accept: acceptOf(media),
    multiple: true,
    onFiles: take,
  });
  const element = h("div", { class: "adding" }, zone, list, noteField, h("div", { class: "actions" }, start, progress), told);
  acceptDrops(element, take);
  return { element, take };
}

function createRow(file, media, onLeave) {
  const choice = h(
    "select",
    { "aria-label": `Read ${file.name} as` },
    media.map((modality) => h("option", { value: modality.name }, modality.name)),
  );
  choice.value = suggest(file, media).name;
  const outcome = h("p", { class: "outcome" });
  const leave = iconButton(`Leave out ${file.name}`, "close", () => onLeave(row));
  const row = {
    file,
    state: "waiting",
    element: h(
      "li",
      { class: "queue-row", "data-state": "waiting" },
      h(
        "div",
        { class: "queue-words" },
        h("span", { class: "file-name" }, file.name),
        h("span", { class: "file-size" }, sizeWords(file.size)),
      ),
      choice,
      leave,
      outcome,
    ),
    get modality() {
      return media.find((modality) => modality.name === choice.value);
    },
    become(state, ...words) {
      row.state = row.element.dataset.state = state;
      choice.disabled = leave.disabled = state === "sending";
      if (state === "added") {
        choice.replaceWith(h("span", { class: "done" }, icon("check"), row.modality.name));
        leave.remove();
      }
      fill(outcome, words);
    },
  };
  return row;
}

async function addOne(collection, row, note) {
  const { file, modality } = row;
  row.become("sending", "Adding…");
  const form = new FormData();
  form.append("modality", modality.name);
  form.append("id", itemId(file, modality));
  form.append("uri", file.name);
  if (note) form.append("metadata", JSON.stringify({ note }));
  form.append("file", file, file.name);
  try {
    const answer = await api.addItem(collection, form);
    const [item] = answer.items;
    const kept = await keepPreview(collection, item.id, file, modality.kind).then(
      () => true,
      () => false,
    );
    row.become("added", kept ? "" : "Added. This browser has no room for a preview.");
  } catch (problem) {
    row.become(
      "failed",
      h("strong", {}, problem.title),
      " ",
      problem.detail ?? problem.message,
      " ",
      problem.code && h("code", {}, problem.code),
    );
  }
}

// The same file added again takes its own place; a picture and its depth map may share a name.
function itemId(file, modality) {
  return `${modality.name}:${file.webkitRelativePath || file.name}`;
}
