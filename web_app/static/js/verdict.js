// The verdict: words first, then the probability with its interval on a scale, what it means, and the reasons.

import { h, icon, percent, place } from "./dom.js";
import { statementLine } from "./provenance.js";
import { T } from "./strings.js";

/** Outcome as icon and words; the colour comes from `data-tone` and never stands alone. */
export const chip = (outcome, words = T.verdict.short[outcome]) =>
  h("span", { class: "chip", "data-tone": outcome }, icon(outcome), h("span", { text: words }));

/** A probability on the scale 0..1 with its 95 % interval, unless corrections moved it, and the decision point. */
export function gauge(verdict, threshold, { labels = false } = {}) {
  const range = verdict.interval?.map(percent);
  const track = h(
    "div",
    {
      class: "gauge__track",
      role: "img",
      "aria-label": range ? T.verdict.gauge(percent(verdict.probability), ...range) : T.verdict.gaugeMoved(percent(verdict.probability)),
    },
    range && place(h("span", { class: "gauge__interval" }), ...verdict.interval),
    place(h("span", { class: "gauge__threshold", title: T.verdict.threshold(percent(threshold)) }), threshold),
    place(h("span", { class: "gauge__point" }), verdict.probability),
  );
  const scale = h(
    "div",
    { class: "gauge__scale", "aria-hidden": "true" },
    h("span", { text: T.verdict.scaleLow }),
    h("span", { text: range ? T.verdict.interval(...range) : T.verdict.intervalMoved }),
    h("span", { text: T.verdict.scaleHigh }),
  );
  return h("div", { class: labels ? "gauge gauge--large" : "gauge", "data-tone": verdict.outcome }, track, labels && scale);
}

/** Reasons or notices as a list; nothing when there are none. */
export function notices(title, list, level) {
  if (!list.length) return null;
  return h(
    "div",
    { class: "reasons" },
    h(level, { class: "reasons__title", text: title }),
    h("ul", {}, list.map((notice) => h("li", { "data-code": notice.code, text: notice.text }))),
  );
}

function meaning(verdict) {
  if (verdict.probability === null) return T.verdict.meaningNone;
  const inHundred = (p) => Math.min(99, Math.max(1, Math.round(p * 100)));
  if (!verdict.interval) return T.verdict.meaningMoved;
  return T.verdict.meaning(...[verdict.probability, ...verdict.interval].map(inHundred));
}

/** The panel on top of a result. */
export function verdictPanel(detection) {
  const { verdict, media, threshold } = detection;
  const hasNumber = verdict.probability !== null;
  const heading = h("h2", { class: "verdict__title", id: "verdict-title", tabindex: "-1", text: T.verdict[verdict.outcome] });
  return h(
    "section",
    { class: "verdict", "data-tone": verdict.outcome, "aria-labelledby": "verdict-title" },
    h(
      "div",
      { class: "verdict__head" },
      h("div", { class: "verdict__icon" }, icon(verdict.outcome)),
      h(
        "div",
        { class: "verdict__words" },
        h("p", { class: "eyebrow", text: T.verdict.eyebrow[media.kind === "video" && detection.speech ? "faces" : media.kind] }),
        heading,
        verdict.headline !== heading.textContent && h("p", { class: "verdict__line", text: verdict.headline }),
        statementLine(detection),
      ),
      hasNumber &&
        h(
          "p",
          { class: "verdict__number" },
          h("strong", { text: percent(verdict.probability) }),
          h("span", { text: T.verdict.number }),
        ),
    ),
    hasNumber && gauge(verdict, threshold, { labels: true }),
    h("p", { class: "verdict__meaning", text: meaning(verdict) }),
    h(
      "div",
      { class: "verdict__lists" },
      notices(T.verdict.reasons, verdict.reasons, "h3"),
      notices(T.verdict.notices, detection.notices, "h3"),
    ),
  );
}
