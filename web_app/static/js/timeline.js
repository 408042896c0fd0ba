// The scores of a video over time, one line per person; a click or an arrow key jumps to the frame.

import { clock, h, percent, s, share } from "./dom.js";
import { T } from "./strings.js";

const HEIGHT = 132;
const PAD = { left: 46, right: 8, top: 10, bottom: 22 };

function drawAxes(width, duration, threshold, x, y) {
  const parts = [0, 0.5, 1].map((p) => s("line", { class: "plot__grid", x1: PAD.left, x2: width - PAD.right, y1: y(p), y2: y(p) }));
  parts.push(s("line", { class: "plot__threshold", x1: PAD.left, x2: width - PAD.right, y1: y(threshold), y2: y(threshold) }));
  for (const p of [0, 0.5, 1]) parts.push(s("text", { class: "plot__label", x: PAD.left - 8, y: y(p) + 4, "text-anchor": "end", text: share(p) }));
  const steps = Math.max(1, Math.min(5, Math.floor(width / 120)));
  for (let i = 0; i <= steps; i += 1) {
    const time = (duration * i) / steps;
    const anchor = i === 0 ? "start" : i === steps ? "end" : "middle";
    parts.push(s("text", { class: "plot__label", x: x(time), y: HEIGHT - 5, "text-anchor": anchor, text: clock(time, duration < 20 ? 1 : 0) }));
  }
  return parts;
}

/** The times that the verdict about a person rests on; reports of before name none. */
const spansOf = (face) => face.spans ?? [];

function drawSpans(face, x) {
  return spansOf(face).map((span) =>
    s("rect", {
      class: "plot__span",
      "data-tone": face.verdict.outcome,
      x: x(span.start_s),
      width: x(span.end_s) - x(span.start_s),
      y: PAD.top,
      height: HEIGHT - PAD.top - PAD.bottom,
    }),
  );
}

function drawFace(face, selected, active, threshold, x, y) {
  const points = face.frames.map((frame) => `${x(frame.time_s)},${y(frame.probability)}`).join(" ");
  const dots = face.frames.map((frame) =>
    s("circle", {
      class: "plot__dot",
      "data-tone": frame.probability >= threshold ? "fake" : "real",
      cx: x(frame.time_s),
      cy: y(frame.probability),
      r: frame === active ? 6 : 4,
    }),
  );
  return s("g", { class: selected ? "plot__face plot__face--selected" : "plot__face" }, s("polyline", { class: "plot__line", points }), dots);
}

/**
 * The plot of a video's scores.
 *
 * Returns {element, select(id), moveTo(seconds)}; `onSeek(seconds, faceId)` is called for the frame that was picked.
 */
export function timeline(detection, onSeek) {
  const { faces, threshold } = detection;
  const duration = Math.max(detection.media.duration_s, ...faces.flatMap((face) => face.frames.map((frame) => frame.time_s)), 0.001);
  let selected = faces.find((face) => face.id === detection.deciding_face);
  let now = 0;
  const svg = s("svg", { class: "plot__svg", height: HEIGHT, "aria-hidden": "true" });
  const readout = h("output", { class: "plot__readout" });
  const spans = h("p", { class: "fine timeline__spans", hidden: true, text: T.timeline.spans });
  const plot = h("div", { class: "plot", role: "slider", tabindex: 0, "aria-label": T.timeline.aria, "aria-orientation": "horizontal" }, svg);

  const scaleX = (width) => (time) => PAD.left + (time / duration) * (width - PAD.left - PAD.right);
  const scaleY = (p) => PAD.top + (1 - p) * (HEIGHT - PAD.top - PAD.bottom);
  const nearest = (time) =>
    selected.frames.reduce((best, frame) => (Math.abs(frame.time_s - time) < Math.abs(best.time_s - time) ? frame : best));

  const draw = () => {
    const width = plot.clientWidth;
    if (!width || !selected) return;
    const x = scaleX(width);
    const active = nearest(now);
    svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    spans.hidden = !spansOf(selected).length;
    svg.replaceChildren(
      ...drawSpans(selected, x),
      ...drawAxes(width, duration, threshold, x, scaleY),
      s("line", { class: "plot__now", x1: x(now), x2: x(now), y1: PAD.top - 6, y2: HEIGHT - PAD.bottom }),
      ...faces.filter((face) => face !== selected).map((face) => drawFace(face, false, null, threshold, x, scaleY)),
      drawFace(selected, true, active, threshold, x, scaleY),
    );
    const value = T.timeline.value(clock(active.time_s), T.face.name(selected.id + 1), percent(active.probability));
    readout.textContent = value;
    plot.setAttribute("aria-valuemin", "1");
    plot.setAttribute("aria-valuemax", String(selected.frames.length));
    plot.setAttribute("aria-valuenow", String(selected.frames.indexOf(active) + 1));
    plot.setAttribute("aria-valuetext", value);
  };

  const jump = (frame) => onSeek(frame.time_s, selected.id);
  plot.addEventListener("keydown", (event) => {
    const last = selected.frames.length - 1;
    const at = selected.frames.indexOf(nearest(now));
    const to = { ArrowRight: at + 1, ArrowUp: at + 1, ArrowLeft: at - 1, ArrowDown: at - 1, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    jump(selected.frames[Math.min(Math.max(to, 0), last)]);
  });
  plot.addEventListener("click", (event) => {
    const area = svg.getBoundingClientRect();
    const span = area.width - PAD.left - PAD.right;
    jump(nearest(((event.clientX - area.left - PAD.left) / span) * duration));
  });
  new ResizeObserver(draw).observe(plot);

  const head = h("div", { class: "timeline__head" }, h("h3", { class: "section-title", text: T.timeline.title }), readout);
  const element = h("section", { class: "timeline", "aria-label": T.timeline.title }, head, plot, h("p", { class: "fine", text: T.timeline.help }), spans);
  return {
    element,
    select: (id) => {
      selected = faces.find((face) => face.id === id && face.frames.length) || selected;
      draw();
    },
    moveTo: (seconds) => {
      now = Math.min(Math.max(seconds, 0), duration);
      draw();
    },
  };
}
