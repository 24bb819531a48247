// What a view says when it has nothing else to show: an error, an emptiness, a wait.

import { h, icon } from "./dom.js";

export function problemNotice(problem) {
  return h(
    "div",
    { class: "notice problem", role: "alert" },
    icon("warning"),
    h(
      "div",
      {},
      h("p", { class: "notice-title" }, problem.title || "Something went wrong on this page"),
      h("p", { class: "notice-detail" }, problem.detail || problem.message),
      h(
        "p",
        { class: "notice-small" },
        problem.code && h("code", {}, problem.code),
        problem.requestId && `request ${problem.requestId}`,
      ),
    ),
  );
}

export function emptyNotice(title, words, symbol = null) {
  return h("div", { class: "empty" }, symbol && icon(symbol), h("p", { class: "empty-title" }, title), h("p", {}, words));
}

export function waiting(words, rows = 4) {
  const bones = Array.from({ length: rows }, () => h("div", { class: "bone" }));
  return h("div", { class: "waiting", role: "status" }, h("span", { class: "unseen" }, words), bones);
}
