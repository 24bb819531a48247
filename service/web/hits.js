// Items of a collection as cards: the hits of a search, or what lies in it.

import { fill, h, icon, iconButton } from "./dom.js";
import { keptView, plainTile } from "./media.js";
import { keptPreviews } from "./previews.js";
import { itemTitle, timeWords } from "./words.js";
import { Urls } from "./urls.js";

// `actions`: { similar(item), remove(item) }. -> { element, show(collection, items), add(collection, items) }
export function createHits(modalities, actions) {
  const urls = new Urls();
  const element = h("ol", { class: "hits" });
  const kindOf = (item) => modalities.find((modality) => modality.name === item.modality)?.kind ?? item.modality;

  const add = async (collection, items) => {
    // Without its store (private windows of some browsers) the page still searches.
    const kept = await keptPreviews(
      collection,
      items.map((item) => item.id),
    ).catch(() => new Map());
    element.append(...items.map((item) => card(item, kindOf(item), kept.get(item.id), urls, actions)));
  };

  const show = async (collection, items) => {
    urls.release();
    fill(element);
    await add(collection, items);
  };

  return { element, show, add };
}

function card(item, kind, kept, urls, actions) {
  const title = itemTitle(item);
  const words =
    kind === "text" ? "A text: only its vector is stored." : "No preview in this browser. The service keeps vectors, not files.";
  return h(
    "li",
    { class: "card", "data-item": item.id },
    h("div", { class: "card-view" }, kept ? keptView(kept, item, urls) : plainTile(kind, words)),
    h(
      "div",
      { class: "card-words" },
      h("p", { class: "card-title" }, title),
      h("p", { class: "card-facts" }, icon(kind), item.modality, spanWords(item), scoreWords(item)),
      scoreLine(item),
      facts(item),
      link(item.uri),
    ),
    h(
      "div",
      { class: "card-actions" },
      iconButton(`Find what is similar to ${title}`, "similar", () => actions.similar(item)),
      iconButton(`Remove ${title} from the collection`, "trash", () => actions.remove(item)),
    ),
  );
}

function spanWords({ start, end }) {
  if (start === null || start === undefined) return null;
  return h("span", {}, end === null || end === undefined ? `from ${timeWords(start)}` : `${timeWords(start)}–${timeWords(end)}`);
}

function scoreWords({ score }) {
  return score === undefined ? null : h("span", { class: "card-score" }, score.toFixed(3));
}

function scoreLine({ score }) {
  if (score === undefined) return null;
  const line = h("div", { class: "bar thin", "aria-hidden": "true" }, h("div", { class: "bar-fill" }));
  line.firstChild.style.inlineSize = `${(100 * Math.max(0, Math.min(1, score))).toFixed(1)}%`;
  return line;
}

function facts(item) {
  const rows = Object.entries(item.metadata ?? {});
  if (itemTitle(item) !== item.id) rows.unshift(["id", item.id]);
  if (rows.length === 0) return null;
  return h(
    "dl",
    { class: "facts" },
    rows.map(([name, value]) => [h("dt", {}, name), h("dd", {}, typeof value === "string" ? value : JSON.stringify(value))]),
  );
}

// Links only, and only to what a link may safely open: the page itself never loads a hit's address.
function link(uri) {
  if (/^https?:\/\//i.test(uri ?? ""))
    return h("a", { href: uri, target: "_blank", rel: "noopener noreferrer", class: "card-link" }, uri);
  if (/^data:(image\/(png|jpeg|webp|gif)|audio|video)[/;,]/i.test(uri ?? ""))
    return h("a", { href: uri, download: "item", class: "card-link" }, "Save the data");
  return null;
}
