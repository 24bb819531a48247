// One file to send: chosen, shown, and told how to be read (its modality and the options of its kind).

import { fill, h, iconButton } from "./dom.js";
import { acceptDrops, dropZone } from "./drop.js";
import { fileView, plainTile } from "./media.js";
import { fits, suggest } from "./kinds.js";
import { optionFields } from "./options.js";
import { pills } from "./choice.js";
import { sizeWords } from "./words.js";
import { Urls } from "./urls.js";

// `onChange(chosen)` is called with { file, modality } or null whenever either changes.
export function createPicker({ modalities, title, onChange }) {
  const media = modalities.filter((modality) => modality.kind !== "text");
  const urls = new Urls();
  const element = h("div", { class: "picker" });
  let file = null;
  let modality = null;
  let options = null;

  const take = (files, as = null) => {
    [file] = files;
    modality = as ?? suggest(file, media);
    show();
    element.querySelector("input:checked").focus({ preventScroll: true }); // The field that had the focus is gone.
    onChange({ file, modality });
  };

  const treatAs = (name) => {
    modality = media.find((one) => one.name === name);
    show();
    element.querySelector("input:checked")?.focus();
    onChange({ file, modality });
  };

  const remove = () => {
    file = modality = options = null;
    show();
    element.querySelector("input").focus();
    onChange(null);
  };

  const show = () => {
    urls.release();
    if (!file) {
      fill(
        element,
        dropZone({
          title,
          words: `or choose one: ${media.map((one) => one.name).join(", ")}`,
          accept: acceptOf(media),
          onFiles: (files) => take(files),
        }),
      );
      return;
    }
    options = optionFields(modality.options);
    const choice = pills(
      "Read it as",
      media.map((one) => ({ value: one.name, words: one.name, symbol: one.kind, faint: !fits(file, one) })),
      treatAs,
    );
    choice.select(modality.name);
    const frame = h("div", { class: "frame", "data-kind": modality.kind }, h("div", { class: "bone" }));
    const caption = h(
      "div",
      { class: "caption" },
      h("span", { class: "file-name" }, file.name),
      h("span", { class: "file-size" }, sizeWords(file.size)),
      iconButton("Remove this file", "close", remove),
    );
    fill(element, h("div", { class: "chosen" }, frame, caption), choice.element, options?.element);
    showIn(frame, file, modality.kind);
  };

  const showIn = async (frame, shown, kind) => {
    const view = await fileView(shown, kind, urls).catch(() => plainTile(kind));
    fill(frame, view);
  };

  acceptDrops(element, (files) => take(files));
  show();
  return {
    element,
    take,
    get chosen() {
      return file && { file, modality };
    },
    // The multipart form of this file and its options, as /v1/embed, /v1/classify take it.
    form() {
      const form = new FormData();
      form.append("file", file, file.name);
      for (const [name, value] of Object.entries(options?.values() ?? {})) form.append(name, value);
      return form;
    },
  };
}

export function acceptOf(modalities) {
  return modalities.flatMap((modality) => [...modality.mediaTypes, ...modality.suffixes]).join(",");
}
