// One result, the same on the upload page and under its permalink: verdict, medium, faces, timeline, feedback, details.

import { reportUrl, url } from "./api.js";
import { confirmDelete } from "./confirm.js";
import { details } from "./details.js";
import { announce, bytes, clock, h, icon } from "./dom.js";
import { facesPanel } from "./faces.js";
import { feedback } from "./feedback.js";
import { provenancePanel } from "./provenance.js";
import { seenPanel } from "./seen.js";
import { soundPlayer } from "./sound.js";
import { stage } from "./stage.js";
import { T } from "./strings.js";
import { timeline } from "./timeline.js";
import { verdictPanel } from "./verdict.js";
import { overallLine, voicePanel, waveform } from "./voice.js";

function caption(detection) {
  const { media, faces } = detection;
  const isSound = media.kind === "audio";
  const parts = [T.media[media.kind], !isSound && `${media.width} × ${media.height}`].filter(Boolean);
  if (media.duration_s !== null) parts.push(clock(media.duration_s));
  parts.push(bytes(media.size_bytes));
  if (!isSound) parts.push(T.face.of(faces.length));
  return h("figcaption", {}, h("strong", { class: "filename", text: detection.name }), h("span", { text: parts.join(" · ") }));
}

function actions(detection, onDeleted) {
  const link = url(`detections/${encodeURIComponent(detection.id)}`);
  const remove = async () => {
    if (await confirmDelete(detection.id, detection.name)) onDeleted();
  };
  return h(
    "nav",
    { class: "row actions", "aria-label": T.action.title },
    link !== location.pathname && h("a", { class: "button", href: link }, icon("link"), h("span", { text: T.action.link })),
    h("a", { class: "button", href: url(`cases?add=${encodeURIComponent(detection.id)}`) }, icon("versions"), h("span", { text: T.action.case })),
    ["html", "pdf", "json"].map((format) =>
      h("a", { class: "button", href: reportUrl(detection.id, format) }, icon("download"), h("span", { text: T.action.report[format] })),
    ),
    h("button", { class: "button button--delete", type: "button", onclick: remove }, icon("trash"), h("span", { text: T.action.remove })),
  );
}

/**
 * Show one detection in a container and say its verdict to screen readers.
 *
 * `focus` moves the focus to the verdict, for readers who asked for it; `onDeleted` is called once it is gone.
 */
export function showResult(container, detection, { focus = false, onDeleted }) {
  const hasFaces = detection.faces.length > 0;
  const parts = [];
  const select = (id) => parts.forEach((part) => part.select(id));
  const isSound = detection.media.kind === "audio";
  const medium = isSound ? soundPlayer(detection) : stage(detection, select);
  const figure = h("figure", { class: "card medium" }, medium.element, caption(detection));
  parts.push(medium);

  if (detection.media.kind === "video" && detection.faces.some((face) => face.frames.length)) {
    const plot = timeline(detection, (seconds) => medium.seek(seconds));
    medium.onTime(plot.moveTo);
    parts.push(plot);
    figure.append(plot.element);
  }
  if (detection.speech) {
    const wave = waveform(detection, (seconds) => medium.seek(seconds));
    medium.onTime(wave.moveTo);
    figure.append(wave.element);
  }
  const columns = h("div", { class: hasFaces ? "columns" : "columns columns--single" }, figure);
  if (hasFaces) {
    const faces = facesPanel(detection, select, medium.showMap);
    parts.push(faces);
    columns.append(h("div", { class: "side" }, [faces.element, voicePanel(detection)].filter(Boolean)), feedback(detection));
  }
  const judgedVoice = detection.speech && detection.speech.verdict.probability !== null;
  container.replaceChildren(
    h(
      "article",
      { class: "result" },
      overallLine(detection),
      verdictPanel(detection),
      provenancePanel(detection),
      columns,
      !hasFaces && voicePanel(detection),
      judgedVoice && feedback(detection, !isSound),
      seenPanel(detection),
      details(detection),
      actions(detection, onDeleted),
    ),
  );
  if (hasFaces) select(detection.deciding_face);
  container.setAttribute("aria-busy", "false");
  announce(T.job.announce(detection.name, T.verdict[(detection.overall ?? detection.verdict).outcome]));
  if (focus) document.getElementById("verdict-title").focus();
}
