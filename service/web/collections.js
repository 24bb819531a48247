// The second view: the collections of this service, one of them open.

import { api } from "./api.js";
import { createCollection } from "./collection.js";
import { confirmed } from "./confirm.js";
import { button, field, fill, h } from "./dom.js";
import { emptyNotice, problemNotice, waiting } from "./notice.js";
import { dropPreviews } from "./previews.js";
import { forget, recall, remember } from "./remember.js";
import { countWords } from "./words.js";

const OPENED = "collection";

export function createCollections(view, modalities) {
  const list = h("ul", { class: "shelf" });
  const place = h("div", { class: "opened" });
  const name = h("input", {
    type: "text",
    required: true,
    maxlength: 63,
    pattern: "[a-z0-9][a-z0-9_\\-]*",
    placeholder: "holiday-2024",
    autocomplete: "off",
    spellcheck: "false",
    autocapitalize: "none",
  });
  const trouble = h("div", {});
  let opened = null;
  let handedFile = null;

  const refresh = async () => {
    const collections = await api.collections();
    fill(list, collections.map(shelfEntry));
    opened?.panel.tell(collections.find((one) => one.name === opened.name)?.items ?? 0);
    return collections;
  };

  const shelfEntry = (collection) => {
    const open = opened?.name === collection.name;
    const entry = h(
      "button",
      { type: "button", "aria-current": open ? "true" : null, onclick: () => openOne(collection.name) },
      h("span", { class: "file-name" }, collection.name),
      h("span", { class: "count" }, countWords(collection.items, "item")),
    );
    return h("li", {}, entry);
  };

  const openOne = async (chosen) => {
    remember(OPENED, chosen);
    const panel = createCollection(chosen, modalities, { onChanged: attempt(refresh), onDelete: () => deleteOne(chosen) });
    opened = { name: chosen, panel };
    fill(place, panel.element);
    if (handedFile) panel.takeFile(handedFile);
    handedFile = null;
    await attempt(refresh)();
  };

  const showNone = () => {
    opened = null;
    forget(OPENED);
    fill(place, emptyNotice("No collection yet", "A collection holds the vectors of your files. Name one to begin.", "plus"));
  };

  const openFirst = async () => {
    fill(place, waiting("Loading the collections…"));
    const collections = await refresh().catch((problem) => {
      fill(place);
      throw problem;
    });
    const wanted = recall(OPENED);
    const first = collections.find((one) => one.name === wanted) ?? collections[0];
    if (first) await openOne(first.name);
    else showNone();
  };

  const createOne = async () => {
    const wanted = name.value.trim();
    const isNew = !(await api.collections()).some((one) => one.name === wanted);
    await api.createCollection(wanted);
    // What is left of a namesake that was deleted elsewhere belongs to other files.
    if (isNew) await dropPreviews(wanted).catch(() => {});
    name.value = "";
    await openOne(wanted);
  };

  const deleteOne = async (chosen) => {
    if (
      !(await confirmed(
        `Delete ${chosen}?`,
        "All its vectors and metadata are deleted. This cannot be undone. Your files stay where they are.",
        "Delete the collection",
      ))
    )
      return;
    await attempt(async () => {
      await api.deleteCollection(chosen);
      await dropPreviews(chosen).catch(() => {}); // Previews that cannot be dropped now are dropped when the name is used again.
      await openFirst();
    })();
  };

  // Runs `work`; what goes wrong is told above the list.
  const attempt = (work) => async () => {
    try {
      fill(trouble);
      await work();
    } catch (problem) {
      fill(trouble, problemNotice(problem));
    }
  };

  const creating = h(
    "form",
    { class: "create" },
    field("New collection", name, "Small letters, digits, - and _."),
    button("Create", { type: "submit" }, "plus"),
  );
  creating.addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(createOne)();
  });

  fill(
    view,
    h(
      "header",
      { class: "view-head" },
      h("h1", { id: "collections-title" }, "Find it again"),
      h("p", { class: "lead" }, "Put files on a shelf, then ask in words, or with another file of any kind."),
    ),
    trouble,
    h("div", { class: "library" }, h("aside", { "aria-label": "Collections" }, list, creating), place),
  );

  return {
    enter: () => {
      if (!opened) attempt(openFirst)();
    },
    takeFile(chosen) {
      if (opened) opened.panel.takeFile(chosen);
      else handedFile = chosen;
    },
  };
}
