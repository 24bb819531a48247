// The shape of a sound: peaks for a drawing, so that a sound can be told from another before it is heard.

const BARS = 72;
const MOST_BYTES = 12 * 1024 * 1024; // A decoded sound is ten times larger: leave long files without a drawing.

// -> 72 numbers between 0 and 1, or null when this browser cannot decode the file.
export async function peaksOf(file) {
  if (file.size > MOST_BYTES) return null;
  try {
    const context = new OfflineAudioContext(1, 1, 16000);
    const sound = await context.decodeAudioData(await file.arrayBuffer());
    const samples = sound.getChannelData(0);
    const peaks = Array.from({ length: BARS }, (_, bar) =>
      peak(samples, (bar * samples.length) / BARS, ((bar + 1) * samples.length) / BARS),
    );
    const most = Math.max(...peaks) || 1;
    return peaks.map((value) => value / most);
  } catch {
    return null; // Not a format of this browser. The service may well read it.
  }
}

function peak(samples, from, to) {
  let most = 0;
  for (let i = Math.floor(from); i < Math.min(samples.length, Math.ceil(to)); i += 1) most = Math.max(most, Math.abs(samples[i]));
  return most;
}

const SVG = "http://www.w3.org/2000/svg";

export function waveform(peaks) {
  const drawing = document.createElementNS(SVG, "svg");
  drawing.setAttribute("class", "waveform");
  drawing.setAttribute("viewBox", `0 0 ${4 * peaks.length} 60`);
  drawing.setAttribute("preserveAspectRatio", "none");
  drawing.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute(
    "d",
    peaks.map((value, bar) => `M${4 * bar + 2} ${(30 - 2 - 26 * value).toFixed(1)}v${(4 + 52 * value).toFixed(1)}`).join(""),
  );
  drawing.append(path);
  return drawing;
}
