// A file made visible or audible, as far as the browser can.

import { h, icon } from "./dom.js";
import { pictureOf } from "./pictures.js";
import { peaksOf, waveform } from "./sound.js";
import { suffixOf } from "./kinds.js";

// A file that was just chosen -> an element.
export async function fileView(file, kind, urls) {
  if (kind === "video") return player(urls.of(file), file.name, null, () => plainTile(kind));
  if (kind === "audio") return soundPlayer(urls.of(file), file.name, await peaksOf(file));
  const redrawn = kind === "image" && suffixOf(file) !== "npy" ? null : await pictureOf(file, kind);
  return picture(urls.of(redrawn ?? file), file.name, () => plainTile(kind));
}

// A preview that this browser kept (see previews.js) -> an element.
export function keptView({ kind, name, thumb, media, peaks }, { start, end }, urls) {
  if (kind === "audio" && media) return soundPlayer(urls.of(media) + span(start, end), name, peaks);
  if (kind === "video" && media)
    return player(urls.of(media) + span(start, end), name, thumb && urls.of(thumb), () => plainTile(kind));
  if (thumb) return picture(urls.of(thumb), name, () => plainTile(kind));
  return plainTile(kind);
}

export function plainTile(kind, words = "This browser cannot show this kind of file.") {
  return h("div", { class: "tile", "data-kind": kind }, icon(kind in DRAWN ? kind : "file"), h("p", {}, words));
}

const DRAWN = { image: 1, video: 1, audio: 1, depth: 1, thermal: 1, text: 1 };

function picture(url, name, otherwise) {
  const image = h("img", { class: "picture", src: url, alt: name, decoding: "async" });
  image.addEventListener("error", () => image.replaceWith(otherwise()));
  return image;
}

function player(url, name, poster, otherwise) {
  const video = h("video", {
    class: "picture",
    src: url,
    poster,
    controls: true,
    playsinline: true,
    preload: "metadata",
    "aria-label": name,
  });
  video.muted = true;
  video.addEventListener("error", () => video.replaceWith(otherwise()));
  return video;
}

function soundPlayer(url, name, peaks) {
  const drawing = peaks ? waveform(peaks) : icon("audio");
  return h("div", { class: "sound" }, drawing, h("audio", { src: url, controls: true, preload: "metadata", "aria-label": name }));
}

// The part of a media file that a player starts at, by the media fragment of its address.
function span(start, end) {
  if (start === null || start === undefined) return "";
  return end === null || end === undefined ? `#t=${start}` : `#t=${start},${end}`;
}
