// What this browser keeps of the files that were added through it, so that hits can be seen and heard.
// The service stores vectors and addresses, never files. Here: IndexedDB, one row for each (collection, item).

import { pictureOf } from "./pictures.js";
import { peaksOf } from "./sound.js";

const STORE = "previews";
const MOST_MEDIA_BYTES = 32 * 1024 * 1024; // Longer clips and sounds keep their picture only.

// A row: { collection, item, kind, name, thumb: Blob?, media: Blob?, peaks: number[]? }
export async function keepPreview(collection, item, file, kind) {
  const played = kind === "video" || kind === "audio";
  const row = {
    collection,
    item,
    kind,
    name: file.name,
    thumb: kind === "audio" ? null : await pictureOf(file, kind),
    media: played && file.size <= MOST_MEDIA_BYTES ? new Blob([file], { type: file.type }) : null,
    peaks: kind === "audio" ? await peaksOf(file) : null,
  };
  await inStore("readwrite", (store) => store.put(row));
}

// -> Map item id -> row, for those of `items` that this browser knows.
export async function keptPreviews(collection, items) {
  const rows = await Promise.all(items.map((item) => inStore("readonly", (store) => store.get([collection, item]))));
  return new Map(rows.filter(Boolean).map((row) => [row.item, row]));
}

export function dropPreview(collection, item) {
  return inStore("readwrite", (store) => store.delete([collection, item]));
}

export function dropPreviews(collection) {
  return inStore("readwrite", (store) => store.delete(everyItemOf(collection)));
}

// An array sorts after every string, so this spans all keys [collection, string].
function everyItemOf(collection) {
  return IDBKeyRange.bound([collection], [collection, []]);
}

let opened = null;

function open() {
  opened ??= new Promise((resolve, reject) => {
    const request = indexedDB.open("bindery", 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: ["collection", "item"] });
    request.onsuccess = () => {
      // Another tab with a newer page may want to change the store: do not stand in its way.
      request.result.onversionchange = () => request.result.close();
      resolve(request.result);
    };
    request.onerror = () => reject(request.error);
  });
  return opened;
}

async function inStore(mode, work) {
  const database = await open();
  return new Promise((resolve, reject) => {
    const transaction = database.transaction(STORE, mode);
    const request = work(transaction.objectStore(STORE));
    transaction.oncomplete = () => resolve(request.result);
    transaction.onabort = () => reject(transaction.error);
  });
}
