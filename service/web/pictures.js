// A small picture of a file: what is kept as a preview, and what is shown where the browser alone would show too little.

import { readMap } from "./npy.js";
import { suffixOf } from "./kinds.js";

const SIDE_PX = 480;
const PATIENCE_MS = 8000;

// -> a Blob of at most 480 pixels a side, or null when this browser cannot draw the file.
export async function pictureOf(file, kind) {
  try {
    const canvas = await draw(file, kind);
    if (!canvas) return null;
    if (kind === "depth") stretch(canvas);
    return await new Promise((resolve) => canvas.toBlob(resolve, "image/webp", 0.86));
  } catch {
    return null; // Not a format of this browser. The service may well read it.
  }
}

async function draw(file, kind) {
  if (suffixOf(file) === "npy") return drawMap(await readMap(file));
  if (kind === "video") return drawFrame(file);
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

function drawMap(map) {
  if (!map) return null;
  const step = Math.max(1, Math.ceil(Math.max(map.width, map.height) / SIDE_PX));
  const canvas = document.createElement("canvas");
  canvas.width = Math.floor(map.width / step);
  canvas.height = Math.floor(map.height / step);
  const values = [];
  for (let y = 0; y < canvas.height; y += 1) {
    for (let x = 0; x < canvas.width; x += 1) values.push(map.at(x * step, y * step));
  }
  const far = values.reduce((most, value) => (Number.isFinite(value) ? Math.max(most, value) : most), 0) || 1;
  const pixels = new ImageData(canvas.width, canvas.height);
  values.forEach((value, i) => pixels.data.set(gray((255 * (Number.isFinite(value) ? value : 0)) / far), 4 * i));
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas;
}

function gray(level) {
  return [level, level, level, 255];
}

// Millimetres in 16 bits fill a few dark levels of a screen. Widen what is there to the whole range; holes (0) stay black.
function stretch(canvas) {
  const context = canvas.getContext("2d");
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  let low = 255;
  let high = 0;
  for (let i = 0; i < pixels.data.length; i += 4) {
    const level = pixels.data[i];
    if (level > 0) low = Math.min(low, level);
    high = Math.max(high, level);
  }
  if (high <= low) return;
  for (let i = 0; i < pixels.data.length; i += 4) {
    const level = pixels.data[i];
    pixels.data.set(gray(level === 0 ? 0 : 30 + (225 * (level - low)) / (high - low)), i);
  }
  context.putImageData(pixels, 0, 0);
}
