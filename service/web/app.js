// The page's beginning: wait for the model, build the two views, show the one that the address names.

import { api } from "./api.js";
import { createClassify } from "./classify.js";
import { createCollections } from "./collections.js";
import { fill, h, icon } from "./dom.js";
import { catchStrays } from "./drop.js";
import { emptyNotice, problemNotice } from "./notice.js";
import { watch } from "./status.js";

const VIEWS = ["classify", "collections"];
const place = (id) => document.getElementById(id);

function shownView() {
  const wanted = location.hash.slice(1);
  return VIEWS.includes(wanted) ? wanted : VIEWS[0];
}

function showView() {
  const shown = shownView();
  for (const view of VIEWS) place(view).hidden = view !== shown;
  for (const link of document.querySelectorAll("[data-view]")) {
    if (link.dataset.view === shown) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

function showModel({ model, dimension, modalities }) {
  document.title = `Bindery · ${model}`;
  fill(
    place("model"),
    h("strong", {}, model),
    h("span", {}, `${dimension} dimensions`),
    h(
      "span",
      { class: "model-modalities" },
      modalities.map((modality) => h("span", {}, icon(modality.kind), modality.name)),
    ),
  );
}

function build(about) {
  showModel(about);
  const collections = createCollections(place("collections"), about.modalities);
  const classify = createClassify(place("classify"), about.modalities, {
    searchWith(chosen) {
      collections.takeFile(chosen);
      location.hash = "collections";
    },
  });
  catchStrays((files) => {
    if (shownView() === "classify") classify.take(files);
  });
  const enter = () => {
    showView();
    if (shownView() === "collections") collections.enter();
  };
  window.addEventListener("hashchange", enter);
  enter();
}

async function begin() {
  showView();
  window.addEventListener("hashchange", showView);
  VIEWS.forEach((view) =>
    fill(
      place(view),
      emptyNotice("Waiting for the model", "The service is starting. This page begins by itself when it is ready."),
    ),
  );
  await watch(place("state"), (state) => {
    document.body.dataset.state = state;
  });
  try {
    build(await api.modalities());
  } catch (problem) {
    VIEWS.forEach((view) => fill(place(view), problemNotice(problem)));
  }
}

begin();
