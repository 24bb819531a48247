// A place that takes files: dropped on it, or chosen by its button.

import { h, icon } from "./dom.js";

// `onFiles(files)` gets at least one file.
export function dropZone({ title, words, accept, multiple = false, onFiles }) {
  const input = h("input", { type: "file", class: "unseen", accept, multiple });
  input.addEventListener("change", () => {
    const files = [...input.files];
    input.value = ""; // The same file may be chosen again, after an error for instance.
    if (files.length > 0) onFiles(files);
  });
  const zone = h(
    "label",
    { class: "drop" },
    input,
    icon("upload"),
    h("span", { class: "drop-title" }, title),
    h("span", { class: "drop-words" }, words),
  );
  acceptDrops(zone, (files) => onFiles(multiple ? files : files.slice(0, 1)));
  return zone;
}

// Makes any element take dropped files; it carries the class "over" while a file hovers above it.
export function acceptDrops(element, onFiles) {
  const over = (yes) => (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    element.classList.toggle("over", yes);
  };
  element.addEventListener("dragenter", over(true));
  element.addEventListener("dragover", over(true));
  element.addEventListener("dragleave", (event) => {
    if (!element.contains(event.relatedTarget)) element.classList.remove("over");
  });
  element.addEventListener("drop", (event) => {
    element.classList.remove("over");
    const files = [...(event.dataTransfer?.files ?? [])];
    if (files.length === 0) return;
    event.preventDefault();
    event.stopPropagation();
    onFiles(files);
  });
}

// Files that miss every zone (the browser would open them in place of the page), and files that are pasted.
export function catchStrays(onFiles) {
  window.addEventListener("dragover", (event) => event.preventDefault());
  window.addEventListener("drop", (event) => {
    event.preventDefault();
    given(event.dataTransfer, onFiles);
  });
  window.addEventListener("paste", (event) => given(event.clipboardData, onFiles));
}

function given(transfer, onFiles) {
  const files = [...(transfer?.files ?? [])];
  if (files.length > 0) onFiles(files);
}
