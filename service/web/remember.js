// Small wishes that outlive a visit (labels typed, collection opened). A browser may refuse storage: then they last as long as the page.

const PREFIX = "bindery.";
const sessionOnly = new Map();

export function recall(name, otherwise = null) {
  if (sessionOnly.has(name)) return sessionOnly.get(name);
  try {
    return localStorage.getItem(PREFIX + name) ?? otherwise;
  } catch {
    return otherwise;
  }
}

export function remember(name, text) {
  sessionOnly.set(name, text);
  try {
    localStorage.setItem(PREFIX + name, text);
  } catch {
    // Full or forbidden: the copy in memory serves this visit.
  }
}

export function forget(name) {
  sessionOnly.delete(name);
  try {
    localStorage.removeItem(PREFIX + name);
  } catch {
    // Nothing was kept, so nothing is left.
  }
}
