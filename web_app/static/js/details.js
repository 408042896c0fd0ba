// What an expert reader wants to check: facts of the file, the model, the measurements and the times.

import { bytes, clock, date, h, milliseconds, percent } from "./dom.js";
import { T } from "./strings.js";

const DERIVED = "face_px_log2"; // says the same as face_px

const row = (term, value, code = false) =>
  value === null || value === undefined
    ? null
    : h("div", {}, h("dt", { text: term }), h("dd", {}, code ? h("code", { text: value }) : value));

function times(timesMs) {
  const total = timesMs.total || Object.values(timesMs).reduce((sum, ms) => sum + ms, 0) || 1;
  const rows = Object.keys(T.details.stages)
    .filter((stage) => stage in timesMs)
    .map((stage) => {
      const bar = h("span", { class: "times__bar" });
      bar.style.width = `${Math.min((timesMs[stage] / total) * 100, 100)}%`;
      return h(
        "tr",
        {},
        h("th", { scope: "row", text: T.details.stages[stage] }),
        h("td", { class: "times__value", text: milliseconds(timesMs[stage]) }),
        h("td", { class: "times__cell", "aria-hidden": "true" }, bar),
      );
    });
  return h("table", { class: "times" }, h("caption", { text: T.details.times }), h("tbody", {}, rows));
}

function quality(face) {
  const entries = face ? Object.entries(face.quality).filter(([name]) => name !== DERIVED) : [];
  if (!entries.length) return null;
  return h(
    "table",
    { class: "times" },
    h("caption", { text: T.details.quality }),
    h(
      "tbody",
      {},
      entries.map(([name, value]) =>
        h(
          "tr",
          {},
          h("th", { scope: "row", text: T.details.qualities[name] || name }),
          h("td", { class: "times__value", text: Number(value).toFixed(Math.abs(value) < 10 ? 2 : 0) }),
        ),
      ),
    ),
  );
}

/** The closed part at the end of a result. */
export function details(detection) {
  const { media } = detection;
  const length = media.duration_s === null ? null : clock(media.duration_s);
  const faces = media.kind !== "audio";
  const deciding = detection.faces.find((face) => face.id === detection.deciding_face);
  return h(
    "details",
    { class: "card details" },
    h("summary", { text: T.details.title }),
    h(
      "dl",
      { class: "facts" },
      row(T.details.file, detection.name),
      row(T.details.format, `${media.format} (${media.mime})`),
      row(T.details.size, bytes(media.size_bytes)),
      row(T.details.dimensions, media.width ? T.details.dimensionsValue(media.width, media.height) : null),
      row(T.details.duration, length && media.fps ? T.details.durationAt(length, Number(media.fps.toFixed(2))) : length),
      row(T.details.codec, media.codec),
      row(T.details.sound, media.sound ? T.details.soundValue(media.sound.codec, media.sound.rate_hz, media.sound.channels) : null),
      row(T.details.sha256, media.sha256, true),
      row(T.details.model, faces ? detection.model_version : null, true),
      row(T.details.modelSha256, faces ? detection.model_sha256 : null, true),
      row(T.details.speechModel, detection.speech ? detection.speech.model_version : null, true),
      row(T.details.threshold, percent(detection.threshold)),
      row(T.details.analysed, date(detection.created)),
    ),
    h("div", { class: "details__tables" }, times(detection.times_ms), quality(deciding)),
  );
}
