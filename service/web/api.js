// The service's HTTP API as this page uses it. Every failure, the network's too, is thrown as a Problem.

import { askForKey, rememberedKey } from "./key.js";
import { aboutModel } from "./modalities.js";

export class Problem extends Error {
  constructor({ title, detail = "", code, status = 0, request_id = null }) {
    super(detail || title);
    Object.assign(this, { title, detail, code, status, requestId: request_id });
  }
}

export const api = {
  modalities: async () => aboutModel(await call("v1/modalities")),
  classify: (modality, form) => call(`v1/classify/${part(modality)}`, { method: "POST", body: form }),
  embed: (modality, form) => call(`v1/embed/${part(modality)}`, { method: "POST", body: form }),
  collections: async () => (await call("v1/collections")).collections,
  createCollection: (name) => call(`v1/collections/${part(name)}`, json("PUT", {})),
  deleteCollection: (name) => call(`v1/collections/${part(name)}`, { method: "DELETE" }),
  items: (name, limit, cursor) =>
    call(`v1/collections/${part(name)}/items?limit=${limit}${cursor ? `&cursor=${part(cursor)}` : ""}`),
  addItem: (name, form) => call(`v1/collections/${part(name)}/items`, { method: "POST", body: form }),
  deleteItem: (name, id) => call(`v1/collections/${part(name)}/items/${part(id)}`, { method: "DELETE" }),
  search: (name, query) => call(`v1/collections/${part(name)}/search`, json("POST", query)),
};

export async function isReady() {
  const response = await fetch(address("readyz"), { cache: "no-store" });
  return response.ok;
}

// Relative to the page, so that the service may live below a path of a larger site.
function address(path) {
  return new URL(path, document.baseURI);
}

function part(text) {
  return encodeURIComponent(text);
}

function json(method, body) {
  return { method, body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
}

async function call(path, init = {}) {
  let response = await send(path, init);
  while (response.status === 401 && (await askForKey())) response = await send(path, init);
  if (!response.ok) throw await problemOf(response);
  return response.status === 204 ? null : response.json();
}

async function send(path, init) {
  const headers = new Headers(init.headers);
  headers.set("Accept", "application/json");
  const key = rememberedKey();
  if (key) headers.set("Authorization", `Bearer ${key}`);
  try {
    return await fetch(address(path), { ...init, headers });
  } catch {
    throw new Problem({
      title: "The service cannot be reached",
      detail: "The connection failed or was closed. Check that the service runs, then try again.",
      code: "unreachable",
    });
  }
}

async function problemOf(response) {
  const body = await response.json().catch(() => ({}));
  return new Problem({
    title: body.title || `The service answered ${response.status}`,
    detail: body.detail || response.statusText,
    code: body.code || `http_${response.status}`,
    status: response.status,
    request_id: body.request_id || response.headers.get("X-Request-Id"),
  });
}
