// 16-bit gray PNG with all of its 16 bits: browsers show the upper eight only, in which a room is a few flat steps.

const MOST_PIXELS = 16e6;

// -> { width, height, at(x, y) -> number }, or null for any other file.
export async function readDeepPng(file) {
  const view = new DataView(await file.arrayBuffer());
  if (view.byteLength < 33 || view.getUint32(0) !== 0x89504e47) return null;
  const [width, height] = [view.getUint32(16), view.getUint32(20)];
  const [bits, color, interlaced] = [view.getUint8(24), view.getUint8(25), view.getUint8(28)];
  if (bits !== 16 || color !== 0 || interlaced || width * height > MOST_PIXELS) return null;
  const rows = await inflate(packedParts(view), height * (1 + 2 * width));
  unfilter(rows, width, height);
  const stride = 1 + 2 * width;
  return { width, height, at: (x, y) => (rows[y * stride + 1 + 2 * x] << 8) | rows[y * stride + 2 + 2 * x] };
}

function packedParts(view) {
  const parts = [];
  for (let at = 8; at + 12 <= view.byteLength;) {
    const length = view.getUint32(at);
    if (view.getUint32(at + 4) === 0x49444154) parts.push(new Uint8Array(view.buffer, at + 8, length));
    at += 12 + length;
  }
  return parts;
}

// Stops at the size that the header promised: a small file must not unpack to a large one.
async function inflate(parts, size) {
  const reader = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate")).getReader();
  const bytes = new Uint8Array(size);
  let filled = 0;
  while (filled < size) {
    const { done, value } = await reader.read();
    if (done) throw new Error("The picture ends too early.");
    bytes.set(value.subarray(0, size - filled), filled);
    filled += value.length;
  }
  reader.cancel().catch(() => {}); // Whatever comes after the last row is of no use.
  return bytes;
}

// PNG stores each row as differences to its neighbours; the row's first byte says to which (PNG specification, section 9).
function unfilter(rows, width, height) {
  const stride = 1 + 2 * width;
  for (let y = 0; y < height; y += 1) {
    const start = y * stride;
    const filter = rows[start];
    for (let i = 1; i < stride; i += 1) {
      const left = i > 2 ? rows[start + i - 2] : 0;
      const up = y > 0 ? rows[start + i - stride] : 0;
      const corner = i > 2 && y > 0 ? rows[start + i - 2 - stride] : 0;
      rows[start + i] += [0, left, up, (left + up) >> 1, paeth(left, up, corner)][filter];
    }
  }
}

function paeth(left, up, corner) {
  const guess = left + up - corner;
  const [toLeft, toUp, toCorner] = [Math.abs(guess - left), Math.abs(guess - up), Math.abs(guess - corner)];
  if (toLeft <= toUp && toLeft <= toCorner) return left;
  return toUp <= toCorner ? up : corner;
}
