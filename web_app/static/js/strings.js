// The words of the modules, out of the catalogue that the pages use too (static/strings). A text with places such as {0}
// becomes a function of their values; one with `one` and `other` chooses by a count, the first value unless `by` says
// which.

import WORDS from "../strings/en.json" with { type: "json" };

const rules = new Intl.PluralRules("en");
const fill = (text, values) => text.replace(/\{(\d)\}/g, (_, index) => values[index]);

function build(node) {
  if (typeof node === "string") return /\{\d\}/.test(node) ? (...values) => fill(node, values) : node;
  if (Array.isArray(node)) return node.map(build);
  if ("other" in node) {
    return (...values) => {
      const count = values[node.by || 0];
      return fill(count === 0 && node.zero ? node.zero : node[rules.select(count)], values);
    };
  }
  return Object.fromEntries(Object.entries(node).map(([key, value]) => [key, build(value)]));
}

export const T = build(WORDS);
