// NumPy's .npy, as far as a depth map needs it: header and numbers of a (height, width) array, little-endian.

import { suffixOf } from "./kinds.js";

const READERS = {
  "|u1": [1, (view, at) => view.getUint8(at)],
  "<u2": [2, (view, at) => view.getUint16(at, true)],
  "<i2": [2, (view, at) => view.getInt16(at, true)],
  "<u4": [4, (view, at) => view.getUint32(at, true)],
  "<i4": [4, (view, at) => view.getInt32(at, true)],
  "<f4": [4, (view, at) => view.getFloat32(at, true)],
  "<f8": [8, (view, at) => view.getFloat64(at, true)],
};

// -> { width, height, at(x, y) -> number }, or null for an array that is not such a map.
export async function readMap(file) {
  if (suffixOf(file) !== "npy") return null;
  const view = new DataView(await file.arrayBuffer());
  if (view.byteLength < 12 || view.getUint32(0) !== 0x934e554d) return null;
  const wide = view.getUint8(6) > 1;
  const start = wide ? 12 : 10;
  const length = wide ? view.getUint32(8, true) : view.getUint16(8, true);
  const header = new TextDecoder("latin1").decode(new Uint8Array(view.buffer, start, Math.min(length, view.byteLength - start)));
  const [size, read] = READERS[header.match(/'descr':\s*'([^']+)'/)?.[1]] ?? [];
  const shape = (header.match(/'shape':\s*\(([^)]*)\)/)?.[1] ?? "")
    .split(",")
    .map(Number)
    .filter((side) => side > 1);
  if (!read || shape.length !== 2 || header.includes("'fortran_order': True")) return null;
  const [height, width] = shape;
  if (start + length + height * width * size > view.byteLength) return null;
  return { width, height, at: (x, y) => read(view, start + length + (y * width + x) * size) };
}
