// Earlier analyses of the same file or of near copies, below a result; nothing where there are none.

import { getSeen, url } from "./api.js";
import { date, h, numberOf } from "./dom.js";
import { T } from "./strings.js";
import { chip } from "./verdict.js";

function line(item) {
  const how = item.how === "face" ? T.seen.how.face(item.face + 1, item.other_face + 1) : T.seen.how[item.how];
  const said = [item.actual && T.seen.actual[item.actual], item.decided && T.seen.decided[item.decided]].filter(Boolean);
  return h("li", {},
    h("a", { class: "filename", href: url(`detections/${encodeURIComponent(item.id)}`), text: item.name }),
    chip(item.overall || item.prediction),
    h("span", { text: numberOf(item) }),
    h("span", { class: "fine", text: [how, date(item.created), ...said].join(" · ") }));
}

/** A place that fills itself; what cannot be asked for is left out, for the result stands without it. */
export function seenPanel(detection) {
  const place = h("section", { class: "card seen", "aria-labelledby": "seen-title", hidden: true });
  getSeen(detection.id).then(({ items }) => {
    if (!items.length) return;
    place.replaceChildren(h("h3", { id: "seen-title", text: T.seen.title }), h("p", { class: "fine", text: T.seen.text }), h("ul", {}, items.map(line)));
    place.hidden = false;
  }, () => place.remove());
  return place;
}
