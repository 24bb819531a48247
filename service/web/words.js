// Numbers and times as a person reads them.

const UNITS = ["bytes", "kB", "MB", "GB"];

export function sizeWords(bytes) {
  const power = Math.min(UNITS.length - 1, bytes > 0 ? Math.floor(Math.log10(bytes) / 3) : 0);
  const amount = bytes / 1000 ** power;
  return `${amount.toFixed(power > 0 && amount < 10 ? 1 : 0)} ${UNITS[power]}`;
}

export function countWords(count, one, many = `${one}s`) {
  return `${new Intl.NumberFormat("en").format(count)} ${count === 1 ? one : many}`;
}

export function timeWords(seconds) {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

// Labels as people type them: one a line, or divided by commas; doubles and blanks dropped.
export function labelsOf(text) {
  return [
    ...new Set(
      text
        .split(/[\n,]/)
        .map((label) => label.trim())
        .filter(Boolean),
    ),
  ];
}

// What to call an item of a collection: the last part of its address, else its id.
export function itemTitle({ id, uri }) {
  if (!uri || uri.startsWith("data:")) return id;
  if (!/^https?:/i.test(uri)) return uri;
  return uri.split(/[?#]/)[0].split("/").filter(Boolean).pop();
}
