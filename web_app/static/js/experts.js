// One row per expert: what it looks at, its probability as a bar, and its weight in the gate's mixture.

import { h, percent, place, share } from "./dom.js";
import { T } from "./strings.js";

function available(expert, threshold) {
  return h(
    "li",
    { class: "expert" },
    h(
      "div",
      { class: "expert__head" },
      h("span", { class: "expert__name", text: expert.title }),
      h("span", { class: "expert__value", text: T.expert.probability(percent(expert.probability)) }),
    ),
    h(
      "div",
      {
        class: "expert__bar",
        role: "img",
        "aria-label": T.expert.aria(expert.title, percent(expert.probability), share(expert.weight)),
      },
      place(h("span", { class: "expert__fill" }), 0, Math.max(expert.probability, 0.01)),
      place(h("span", { class: "expert__tick" }), threshold),
    ),
    h(
      "div",
      { class: "expert__foot" },
      h("span", { text: T.expert.looksAt(expert.looks_at) }),
      h(
        "span",
        { class: "weight" },
        h("span", { class: "weight__bar", "aria-hidden": "true" }, place(h("span", {}), 0, expert.weight)),
        T.expert.weight(share(expert.weight)),
      ),
    ),
  );
}

const missing = (expert) =>
  h(
    "li",
    { class: "expert expert--missing" },
    h(
      "div",
      { class: "expert__head" },
      h("span", { class: "expert__name", text: expert.title }),
      h("span", { class: "expert__value", text: T.expert.missing }),
    ),
    h("div", { class: "expert__bar", "aria-hidden": "true" }),
    h("p", { class: "expert__foot", text: expert.missing_because }),
  );

/** The experts of one face, the heaviest first, the missing ones last. */
export function expertList(experts, threshold) {
  const ordered = [...experts].sort((a, b) => Number(b.available) - Number(a.available) || b.weight - a.weight);
  return h(
    "div",
    { class: "experts" },
    h("h4", { class: "section-title", text: T.expert.title }),
    h("ul", {}, ordered.map((expert) => (expert.available ? available(expert, threshold) : missing(expert)))),
    h("p", { class: "fine", text: T.expert.weightHelp }),
  );
}
