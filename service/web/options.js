// Fields for the options of a kind, made from the JSON schema that the service publishes: a new option needs no change here.

import { field, h } from "./dom.js";

// The page asks for one vector of a file; these cut it into several.
const CUTTING = new Set(["clip_seconds", "clip_stride", "clip_by", "clip_min_seconds", "pool"]);

// -> { element, values() }, or null when the kind has no options.
export function optionFields(schema) {
  const entries = Object.entries(schema?.properties ?? {}).filter(([name]) => !CUTTING.has(name));
  if (entries.length === 0) return null;
  const inputs = entries.map(([name, property]) => [name, control(property), property.description]);
  const grid = h(
    "div",
    { class: "option-grid" },
    inputs.map(([name, input, words]) => field(title(name), input, words)),
  );
  const element = h("details", { class: "options" }, h("summary", {}, "Options"), grid);
  return {
    element,
    // Only what was filled in: an absent option is the service's default.
    values: () =>
      Object.fromEntries(inputs.filter(([, input]) => input.value !== "").map(([name, input]) => [name, input.value])),
  };
}

function control(property) {
  const shape = (property.anyOf ?? [property]).find((one) => one.type !== "null");
  const choices = shape.enum ?? (shape.const === undefined ? null : [shape.const]);
  if (choices)
    return h(
      "select",
      {},
      h("option", { value: "" }, "automatic"),
      choices.map((choice) => h("option", { value: choice }, choice)),
    );
  if (shape.type === "boolean")
    return h(
      "select",
      {},
      ["", "true", "false"].map((value) => h("option", { value }, value || "automatic")),
    );
  const number = shape.type === "number" || shape.type === "integer";
  return h("input", {
    type: number ? "number" : "text",
    step: "any",
    inputmode: number ? "decimal" : null,
    placeholder: "automatic",
  });
}

function title(name) {
  const words = name.replaceAll("_", " ");
  return words[0].toUpperCase() + words.slice(1);
}
