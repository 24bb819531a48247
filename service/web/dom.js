// Building elements. Text always becomes a text node: file names, labels and metadata are a stranger's words,
// so no module of this page turns a string into markup.

// h("p", { class: "lead", onclick: f, "aria-live": "polite", hidden: true }, "text", node, [nodes], null) -> element
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...present(children));
  return element;
}

export function fill(element, ...children) {
  element.replaceChildren(...present(children));
  return element;
}

function present(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
}

const SVG = "http://www.w3.org/2000/svg";

// A line drawing out of icons.svg; decoration only, so that every use has words beside it or an aria-label around it.
export function icon(name) {
  const drawing = document.createElementNS(SVG, "svg");
  drawing.setAttribute("class", "icon");
  drawing.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `icons.svg#${name}`);
  drawing.append(use);
  return drawing;
}

let counter = 0;

export function uniqueId(stem) {
  counter += 1;
  return `${stem}-${counter}`;
}

export function button(words, attributes = {}, symbol = null) {
  return h("button", { type: "button", class: "button", ...attributes }, symbol && icon(symbol), words);
}

export function iconButton(label, symbol, onclick) {
  return h("button", { type: "button", class: "icon-button", "aria-label": label, title: label, onclick }, icon(symbol));
}

export function field(label, control, hint = null) {
  control.id ||= uniqueId("field");
  return h("div", { class: "field" }, h("label", { for: control.id }, label), control, hint && h("p", { class: "hint" }, hint));
}
