// The check before an upload: size, dimensions, length. The server checks again, and decides by the content what a file
// is; this one saves the reader a pointless upload. What the browser itself cannot open is left to the server.

import { bytes, clock } from "./dom.js";
import { T } from "./strings.js";

const PROBE_MS = 4000;
const JPEG_GAIN = 4; // the server decodes a JPEG beyond the limit at half its width and height

/** The limits that the template hands over as data attributes. */
export function readLimits(element) {
  const { maxBytes, maxMegapixels, minSide, maxSeconds } = element.dataset;
  return {
    maxBytes: Number(maxBytes),
    maxMegapixels: Number(maxMegapixels),
    minSide: Number(minSide),
    maxSeconds: Number(maxSeconds),
  };
}

const failure = (code, text, ...values) => ({
  code,
  detail: typeof text.detail === "function" ? text.detail(...values) : text.detail,
  remedy: typeof text.remedy === "function" ? text.remedy(...values) : text.remedy,
});

function checkSize(file, limits) {
  if (file.size === 0) return failure("empty", T.error.empty);
  if (file.size > limits.maxBytes) return failure("media_too_large", T.error.size, bytes(file.size), bytes(limits.maxBytes));
  return null;
}

function probe(file, address) {
  const isTimed = !file.type.startsWith("image/");
  const node = isTimed ? document.createElement("video") : new Image(); // it plays sound alone too
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(null), PROBE_MS);
    const end = (facts) => {
      clearTimeout(timer);
      resolve(facts);
    };
    node.addEventListener("error", () => end(null));
    if (isTimed) {
      node.preload = "metadata";
      node.addEventListener("loadedmetadata", () => end({ width: node.videoWidth, height: node.videoHeight, seconds: node.duration }));
    } else {
      node.addEventListener("load", () => end({ width: node.naturalWidth, height: node.naturalHeight }));
    }
    node.src = address;
  });
}

/** Why a file will not be accepted as {code, detail, remedy}, or null; `address` is its blob URL. */
export async function checkFile(file, address, limits) {
  const early = checkSize(file, limits);
  if (early || !/^(image|video|audio)\//.test(file.type)) return early;
  const facts = await probe(file, address);
  if (!facts) return null;
  const { width, height, seconds } = facts;
  const most = limits.maxMegapixels * (file.type === "image/jpeg" ? JPEG_GAIN : 1);
  if (Number.isFinite(seconds) && seconds > limits.maxSeconds) {
    return failure("media_too_long", T.error.duration, clock(seconds, 0), clock(limits.maxSeconds, 0));
  }
  if (!width) return null;
  if (width * height > most * 1e6) return failure("media_dimensions", T.error.pixels, width, height, most);
  if (Math.min(width, height) < limits.minSide) return failure("media_dimensions", T.error.small, width, height, limits.minSide);
  return null;
}
