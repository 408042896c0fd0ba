// The people in the medium: one tab each, with verdict, reasons, experts and measurements.

import { closeupPanel } from "./closeup.js";
import { h, icon, percent } from "./dom.js";
import { expertList } from "./experts.js";
import { T } from "./strings.js";
import { chip, gauge, notices } from "./verdict.js";

// A face that cannot be judged (too small, cut, unsharp) gets no number; reports of before do not say `judged`.
const hasNumber = ({ judged, verdict }) => judged !== false && verdict.probability !== null;
const words = (face) => (hasNumber(face) ? T.verdict.short[face.verdict.outcome] : T.face.notJudged);

/** The tone of a face's colour: its outcome, or that of nothing to judge. */
export const faceTone = (face) => (hasNumber(face) ? face.verdict.outcome : "no_face");

/** The short name of a face on its box; people are counted from 1. */
export const faceTag = (face) => (hasNumber(face) ? T.face.tag(face.id + 1, percent(face.verdict.probability)) : String(face.id + 1));

/** The full name of a face for tabs and boxes; it begins with the words that are seen there. */
export const faceLabel = (face) => T.face.label(faceTag(face), words(face));

function facts(face, detection) {
  const width = face.quality.face_px;
  return [
    width ? T.face.width(Math.round(width)) : null,
    detection.media.kind === "video" ? T.face.seen(face.frames.length) : null,
    face.id === detection.deciding_face && detection.faces.length > 1 ? T.face.deciding : null,
  ]
    .filter(Boolean)
    .join(" · ");
}

function panel(face, detection, closeup) {
  const { verdict } = face;
  return h(
    "div",
    { class: "face", id: `face-panel-${face.id}`, role: "tabpanel", "aria-labelledby": `face-tab-${face.id}`, hidden: true },
    h(
      "div",
      { class: "face__head" },
      h("h3", { class: "face__name", text: T.face.name(face.id + 1) }),
      chip(faceTone(face), words(face)),
      hasNumber(face) && h("strong", { class: "face__number", text: percent(verdict.probability) }),
    ),
    h("p", { class: "fine face__facts", text: facts(face, detection) }),
    hasNumber(face) && gauge(verdict, detection.threshold),
    face.id !== detection.deciding_face && notices(T.verdict.reasons, verdict.reasons, "h4"), // else they stand on top
    face.experts.length > 0 && expertList(face.experts, detection.threshold),
    closeup.element,
  );
}

/**
 * Tabs and panels of all faces.
 *
 * Returns {element, select(id)}; `onSelect(id)` is called when the reader picks a tab, `showMap` puts a heatmap on the
 * picture.
 */
export function facesPanel(detection, onSelect, showMap) {
  const { faces } = detection;
  const tabs = faces.map((face) =>
    h(
      "button",
      {
        class: "tab",
        type: "button",
        role: "tab",
        id: `face-tab-${face.id}`,
        "data-tone": faceTone(face),
        "aria-controls": `face-panel-${face.id}`,
        "aria-label": faceLabel(face),
        onclick: () => onSelect(face.id),
      },
      icon(faceTone(face)),
      h("span", { text: T.face.name(face.id + 1) }),
    ),
  );
  const closeups = faces.map((face) => closeupPanel(detection, face, showMap));
  const panels = faces.map((face, index) => panel(face, detection, closeups[index]));
  const list = h("div", { class: "tabs", role: "tablist", "aria-label": T.face.title, hidden: faces.length < 2 }, tabs);
  list.addEventListener("keydown", (event) => {
    const at = tabs.indexOf(document.activeElement);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    const next = (to + tabs.length) % tabs.length;
    onSelect(faces[next].id);
    tabs[next].focus();
  });

  const select = (id) => {
    showMap(null);
    faces.forEach((face, index) => {
      tabs[index].setAttribute("aria-selected", String(face.id === id));
      tabs[index].tabIndex = face.id === id ? 0 : -1;
      panels[index].hidden = face.id !== id;
      if (face.id === id) closeups[index].open();
    });
  };
  return { element: h("section", { class: "card faces", "aria-label": T.face.title }, list, panels), select };
}
