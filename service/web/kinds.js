// What this page knows about kinds of media: which modality a file probably is, and labels to begin with.
// Everything else (which modalities exist, what they accept, their options) is asked from the service.

const FIRST_LABELS = {
  image: ["elephant", "accordion", "butterfly", "camera", "sunflower", "motorbike", "piano", "airplane"],
  video: ["a kitchen", "a bedroom", "a street", "a garden", "a person using sign language", "cars driving by", "people walking"],
  audio: ["dog barking", "rain", "rooster crowing", "baby crying", "sea waves", "clock ticking", "chainsaw", "helicopter"],
  depth: ["bathroom", "bedroom", "kitchen", "living room", "dining room", "office", "gym", "street", "garden"],
  thermal: ["cars", "people", "bicycles", "a large vehicle", "empty ground"],
};

// Families of file that browsers leave without a media type.
const FAMILY_BY_SUFFIX = {
  npy: "depth",
  exr: "depth",
  tif: "image",
  tiff: "image",
  bmp: "image",
  webp: "image",
  mkv: "video",
  avi: "video",
  mov: "video",
  opus: "audio",
  flac: "audio",
  m4a: "audio",
};

const PICTURE_KINDS = ["image", "depth", "thermal"];

export function firstLabels(kind) {
  return FIRST_LABELS[kind] ?? FIRST_LABELS.image;
}

// The modality to offer first: what the name says ("hall-depth.png"), else the first one of the file's family.
export function suggest(file, modalities) {
  const family = familyOf(file);
  const fitting = modalities.filter((modality) => kindsOf(family).includes(modality.kind));
  const name = file.name.toLowerCase();
  return (
    fitting.find((modality) => name.includes(modality.name) && modality.kind !== family) ??
    fitting.find((modality) => modality.kind === family) ??
    modalities.find((modality) => modality.accepts(file)) ??
    modalities[0]
  );
}

export function fits(file, modality) {
  return kindsOf(familyOf(file)).includes(modality.kind) || modality.accepts(file);
}

export function suffixOf(file) {
  return file.name.includes(".") ? file.name.split(".").pop().toLowerCase() : "";
}

function familyOf(file) {
  const [top] = file.type.split("/");
  return ["image", "video", "audio"].includes(top) ? top : (FAMILY_BY_SUFFIX[suffixOf(file)] ?? null);
}

function kindsOf(family) {
  if (family === "image") return PICTURE_KINDS;
  return family ? [family] : [];
}
