// The voice of a recording or video: one line that joins it with the faces, its verdict, and its windows over time.

import { getFrames } from "./api.js";
import { clock, h, icon, percent, s, share } from "./dom.js";
import { T } from "./strings.js";
import { chip, gauge, notices } from "./verdict.js";

const HEIGHT = 150;
const PAD = { left: 46, right: 8, top: 10, bottom: 22 };

/** What faces and voice of a video say together; null for everything else. */
export function overallLine({ overall }) {
  if (!overall) return null;
  return h(
    "section",
    { class: "overall", "data-tone": overall.outcome, "aria-label": T.voice.together },
    icon(overall.outcome),
    h("p", {}, h("span", { class: "eyebrow", text: T.voice.together })),
    h("div", {}, h("p", { class: "overall__line", text: `${overall.headline}.` }), overall.reasons.map((reason) => h("p", { class: "fine", "data-code": reason.code, text: reason.text }))),
  );
}

/** Start and end of what lies above the decision point, windows that overlap joined. */
export function suspicious({ windows, threshold }) {
  const joined = [];
  for (const window of windows.filter((each) => each.probability > threshold)) {
    const last = joined.at(-1);
    if (last && window.start_s <= last[1]) last[1] = window.end_s;
    else joined.push([window.start_s, window.end_s]);
  }
  return joined;
}

/** The verdict on the voice; of a recording it stands on top already, so only the facts follow here. */
export function voicePanel({ speech, media }) {
  if (!speech) return null;
  const { verdict } = speech;
  const alone = media.kind === "audio";
  const stretches = suspicious(speech).map(([start, end]) => T.voice.stretch(clock(start), clock(end)));
  return h(
    "section",
    { class: "card voice", "aria-labelledby": "voice-title" },
    h(
      "div",
      { class: "face__head" },
      h("h3", { class: "face__name", id: "voice-title", text: T.voice.title }),
      !alone && chip(verdict.outcome),
      !alone && verdict.probability !== null && h("strong", { class: "face__number", text: percent(verdict.probability) }),
    ),
    h("p", { class: "fine", text: `${T.voice.heard(clock(speech.speech_s), clock(speech.duration_s))} · ${T.voice.network(speech.model_version)}` }),
    !alone && verdict.probability !== null && gauge(verdict, speech.threshold),
    !alone && notices(T.verdict.reasons, verdict.reasons, "h4"),
    speech.windows.length > 0 && h("p", { text: stretches.length ? T.voice.suspicious(stretches.join(", ")) : T.voice.unsuspicious }),
  );
}

/**
 * The form of the sound with its windows at their probabilities.
 *
 * Returns {element, moveTo(seconds)}; `onSeek(seconds)` is called for the window that was picked.
 */
export function waveform({ id, speech }, onSeek) {
  const { windows, threshold } = speech;
  const duration = Math.max(speech.duration_s, 0.001);
  let now = 0;
  let form = [];
  const svg = s("svg", { class: "plot__svg", height: HEIGHT, "aria-hidden": "true" });
  const readout = h("output", { class: "plot__readout" });
  const role = windows.length ? { role: "slider", tabindex: 0, "aria-label": T.voice.wave, "aria-orientation": "horizontal" } : {};
  const plot = h("div", { class: "plot", ...role }, svg);
  const middle = (window) => (window.start_s + window.end_s) / 2;
  const nearest = (time) => windows.reduce((best, each) => (Math.abs(middle(each) - time) < Math.abs(middle(best) - time) ? each : best));

  const draw = () => {
    const width = plot.clientWidth;
    if (!width) return;
    const x = (time) => PAD.left + (time / duration) * (width - PAD.left - PAD.right);
    const y = (p) => PAD.top + (1 - p) * (HEIGHT - PAD.top - PAD.bottom);
    const centre = y(0.5);
    const bars = form.map((peak, index) => {
      const at = x((duration * (index + 0.5)) / form.length).toFixed(1);
      const half = Math.max(0.5, (peak * (y(0) - y(1))) / 2);
      return `M${at} ${(centre - half).toFixed(1)}V${(centre + half).toFixed(1)}`;
    });
    const tone = (window) => (window.probability > threshold ? "fake" : "real");
    const marks = suspicious(speech).map(([start, end]) =>
      s("rect", { class: "wave__window", "data-tone": "fake", x: x(start), width: Math.max(x(end) - x(start), 1), y: y(1), height: y(0) - y(1) }),
    );
    const levels = windows.map((window) => {
      const level = y(window.probability);
      return s("line", { class: "wave__score", "data-tone": tone(window), x1: x(window.start_s) + 2, x2: x(window.end_s) - 2, y1: level, y2: level });
    });
    const steps = Math.max(1, Math.min(5, Math.floor(width / 120)));
    const times = Array.from({ length: steps + 1 }, (_, index) => {
      const anchor = index === 0 ? "start" : index === steps ? "end" : "middle";
      const time = (duration * index) / steps;
      return s("text", { class: "plot__label", x: x(time), y: HEIGHT - 5, "text-anchor": anchor, text: clock(time, duration < 20 ? 1 : 0) });
    });
    svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    svg.replaceChildren(
      ...[0, 0.5, 1].map((p) => s("text", { class: "plot__label", x: PAD.left - 8, y: y(p) + 4, "text-anchor": "end", text: share(p) })),
      s("line", { class: "plot__threshold", x1: PAD.left, x2: width - PAD.right, y1: y(threshold), y2: y(threshold) }),
      s("path", { class: "wave__form", d: bars.join("") }),
      ...marks,
      ...levels,
      ...times,
      s("line", { class: "plot__now", x1: x(now), x2: x(now), y1: PAD.top - 6, y2: HEIGHT - PAD.bottom }),
    );
    if (!windows.length) return;
    const active = nearest(now);
    const value = T.voice.value(clock(active.start_s), clock(active.end_s), percent(active.probability));
    readout.textContent = value;
    plot.setAttribute("aria-valuemin", "1");
    plot.setAttribute("aria-valuemax", String(windows.length));
    plot.setAttribute("aria-valuenow", String(windows.indexOf(active) + 1));
    plot.setAttribute("aria-valuetext", value);
  };

  plot.addEventListener("keydown", (event) => {
    if (!windows.length) return;
    const at = windows.indexOf(nearest(now));
    const last = windows.length - 1;
    const to = { ArrowRight: at + 1, ArrowUp: at + 1, ArrowLeft: at - 1, ArrowDown: at - 1, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    onSeek(middle(windows[Math.min(Math.max(to, 0), last)]));
  });
  plot.addEventListener("click", (event) => {
    const area = svg.getBoundingClientRect();
    const time = ((event.clientX - area.left - PAD.left) / (area.width - PAD.left - PAD.right)) * duration;
    onSeek(Math.min(Math.max(time, 0), duration));
  });
  new ResizeObserver(draw).observe(plot);
  getFrames(id)
    .then((found) => {
      form = found.waveform || [];
      draw();
    })
    .catch(() => {}); // without the form the windows stand alone

  const head = h("div", { class: "timeline__head" }, h("h3", { class: "section-title", text: T.voice.wave }), readout);
  const element = h("section", { class: "timeline", "aria-label": T.voice.wave }, head, plot, h("p", { class: "fine", text: T.voice.help }));
  return {
    element,
    moveTo: (seconds) => {
      now = Math.min(Math.max(seconds, 0), duration);
      draw();
    },
  };
}
