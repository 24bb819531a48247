// A small picture of a file: what is kept as a preview, and what is shown where the browser alone would show too little.

import { readMap } from "./npy.js";
import { readDeepPng } from "./png16.js";

const SIDE_PX = 480;
const RASTERS = ["depth", "thermal"]; // Their files may hold more than a screen can show.
const DARKEST = 28; // Of a known value, so that it differs from a hole.
const PATIENCE_MS = 8000;

// -> a Blob of at most 480 pixels a side, or null when this browser cannot draw the file.
// Of a map (.npy, 16-bit PNG) the whole range of its values is made visible.
export async function pictureOf(file, kind) {
  try {
    const canvas = await draw(file, kind);
    return await new Promise((resolve) => canvas.toBlob(resolve, "image/webp", 0.86));
  } catch {
    return null; // Not a format of this browser. The service may well read it.
  }
}

async function draw(file, kind) {
  if (kind === "video") return drawFrame(file);
  const map = (await readMap(file)) ?? (RASTERS.includes(kind) ? await readDeepPng(file) : null);
  if (map) return drawMap(map);
  const bitmap = await createImageBitmap(file);
  return drawn(bitmap, bitmap.width, bitmap.height);
}

function drawn(source, width, height) {
  const scale = Math.min(1, SIDE_PX / Math.max(width, height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  canvas.getContext("2d").drawImage(source, 0, 0, canvas.width, canvas.height);
  return canvas;
}

async function drawFrame(file) {
  const video = document.createElement("video");
  const url = URL.createObjectURL(file);
  try {
    video.muted = true;
    video.preload = "auto";
    video.src = url;
    await once(video, "loadeddata");
    video.currentTime = Math.min(1, video.duration / 3);
    await once(video, "seeked");
    return drawn(video, video.videoWidth, video.videoHeight);
  } finally {
    video.removeAttribute("src");
    video.load();
    URL.revokeObjectURL(url);
  }
}

function once(element, name) {
  return new Promise((resolve, reject) => {
    element.addEventListener(name, resolve, { once: true });
    element.addEventListener("error", reject, { once: true });
    setTimeout(reject, PATIENCE_MS);
  });
}

// The numbers that occur, spread over the screen's range; holes (0, not a number) stay black.
function drawMap(map) {
  const step = Math.max(1, Math.ceil(Math.max(map.width, map.height) / SIDE_PX));
  const canvas = document.createElement("canvas");
  canvas.width = Math.floor(map.width / step);
  canvas.height = Math.floor(map.height / step);
  const values = [];
  for (let y = 0; y < canvas.height; y += 1) {
    for (let x = 0; x < canvas.width; x += 1) values.push(map.at(x * step, y * step));
  }
  const known = values.filter((value) => Number.isFinite(value) && value !== 0);
  const [low, high] = known.reduce(
    ([least, most], value) => [Math.min(least, value), Math.max(most, value)],
    [Infinity, -Infinity],
  );
  const span = high - low || 1;
  const pixels = new ImageData(canvas.width, canvas.height);
  values.forEach((value, i) => {
    const level = Number.isFinite(value) && value !== 0 ? DARKEST + ((255 - DARKEST) * (value - low)) / span : 0;
    pixels.data.set([level, level, level, 255], 4 * i);
  });
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas;
}
