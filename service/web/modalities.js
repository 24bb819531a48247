// What the service says about its modalities, as the rest of the page wants it.

import { suffixOf } from "./kinds.js";

// -> { model, dimension, modalities: [{ name, kind, mediaTypes, suffixes, options, accepts(file) }] }
export function aboutModel({ model, dimension, modalities }) {
  return { model, dimension, modalities: modalities.map(aboutModality) };
}

function aboutModality({ name, kind, media_types: mediaTypes, suffixes, options }) {
  const accepts = (file) => mediaTypes.includes(file.type) || suffixes.includes(`.${suffixOf(file)}`);
  return { name, kind, mediaTypes, suffixes, options, accepts };
}
