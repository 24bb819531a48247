// One opened collection: search it, see its items, add to it, remove it.

import { createAdding } from "./adding.js";
import { api } from "./api.js";
import { confirmed } from "./confirm.js";
import { button, fill, h, icon } from "./dom.js";
import { createHits } from "./hits.js";
import { emptyNotice, problemNotice, waiting } from "./notice.js";
import { dropPreview } from "./previews.js";
import { createSearch } from "./search.js";
import { countWords, itemTitle } from "./words.js";

const SHOWN_ITEMS = 24;

// `onChanged()` is called when the number of items may have changed, `onDelete()` when the collection shall go.
export function createCollection(name, modalities, { onChanged, onDelete }) {
  const heading = h("h2", { class: "result-title", tabindex: "-1" });
  const below = h("div", { "aria-live": "polite" });
  const clear = button("Show all items", { class: "button quiet", hidden: true, onclick: () => listItems() });
  const hits = createHits(modalities, { similar: (item) => findSimilar(item), remove: (item) => removeItem(item) });
  const search = createSearch(modalities, (query, words) => runSearch(query, `Hits for ${words}`));
  const adding = createAdding(name, modalities, () => {
    onChanged();
    listItems();
  });
  const addPanel = h("details", { class: "panel add" }, h("summary", {}, icon("plus"), "Add files"), adding.element);
  let turn = 0;

  // Shows what `work` gives, unless something newer was asked meanwhile.
  const showing = async (title, work) => {
    const mine = (turn += 1);
    heading.textContent = title;
    fill(below, waiting("Searching…", 3));
    const shown = await work().catch(problemNotice);
    if (mine === turn) fill(below, shown);
  };

  const listItems = () =>
    showing("In this collection", async () => {
      clear.hidden = true;
      const { items, cursor } = await api.items(name, SHOWN_ITEMS);
      if (items.length === 0) {
        addPanel.open = true;
        return emptyNotice("Nothing is in it yet", "Add some files, then search them with words, or with another file.", "file");
      }
      await hits.show(name, items);
      return [hits.element, cursor && moreButton(cursor)];
    });

  // Appends the next page, and gives way to a button for the page after it.
  const moreButton = (cursor) => {
    const showMore = async () => {
      more.disabled = true;
      try {
        const page = await api.items(name, SHOWN_ITEMS, cursor);
        await hits.add(name, page.items);
        more.replaceWith(page.cursor ? moreButton(page.cursor) : "");
      } catch (problem) {
        more.replaceWith(problemNotice(problem));
      }
    };
    const more = button("Show more", { class: "button more", onclick: showMore });
    return more;
  };

  const runSearch = (query, title) =>
    showing(title, async () => {
      clear.hidden = false;
      const answer = await api.search(name, await query);
      if (answer.hits.length === 0)
        return emptyNotice("No hits", "Nothing in this collection answers that. Look among everything, or add files.", "search");
      await hits.show(name, answer.hits);
      return hits.element;
    });

  const findSimilar = (item) => {
    runSearch(search.bySimilar(item), `Similar to ${itemTitle(item)}`);
    heading.focus();
  };

  const removeItem = async (item) => {
    const words = "Its vector and metadata are deleted. Your file stays where it is.";
    if (!(await confirmed(`Remove ${itemTitle(item)}?`, words, "Remove"))) return;
    try {
      await api.deleteItem(name, item.id);
      await dropPreview(name, item.id).catch(() => {}); // A preview that cannot be dropped is never shown again.
      onChanged();
      listItems();
    } catch (problem) {
      fill(below, problemNotice(problem));
    }
  };

  const counted = h("p", { class: "hint" });
  const element = h(
    "div",
    { class: "collection" },
    h(
      "header",
      { class: "collection-head" },
      h("div", {}, h("h2", {}, name), counted),
      button("Delete", { class: "button quiet", onclick: onDelete }, "trash"),
    ),
    search.element,
    addPanel,
    h("div", { class: "result-head" }, heading, clear),
    below,
  );
  listItems();
  return {
    element,
    takeFile: search.takeFile,
    tell: (items) => {
      counted.textContent = countWords(items, "item");
    },
  };
}
