// Small tools to build the page: elements, icons, announcements, and numbers as people read them.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "class") node.setAttribute("class", value);
    else if (key === "text") node.textContent = value;
    else if (value === true) node.setAttribute(key, "");
    else node.setAttribute(key, String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** An HTML element; `onclick` and the like become listeners, `text` its text, null and false attributes are left out. */
export const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);

/** An SVG element, with the same rules as `h`. */
export const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

/** A decorative icon from the sprite. */
export const icon = (name) =>
  s("svg", { class: "icon", "aria-hidden": "true" }, s("use", { href: `${document.documentElement.dataset.icons}#${name}` }));

/** Place an element on a scale of 0..1: the style object is allowed by the policy, a style attribute is not. */
export function place(node, from, to) {
  node.style.left = `${from * 100}%`;
  if (to !== undefined) node.style.width = `${(to - from) * 100}%`;
  return node;
}

/** Tell screen readers, without moving the focus. */
export function announce(text) {
  document.getElementById("live").textContent = text;
}

/** A probability as a whole percentage that never claims certainty. */
export function percent(p) {
  if (p > 0.99) return ">\u00a099\u00a0%";
  if (p < 0.01) return "<\u00a01\u00a0%";
  return `${Math.round(p * 100)}\u00a0%`;
}

/** The number beside the verdict of an item in a list: none where faces and voice together say something else. */
export function numberOf({ fake_probability: p, prediction, overall }) {
  return (p ?? null) === null || (overall && overall !== prediction) ? "–" : percent(p);
}

export const share = (fraction) => `${Math.round(fraction * 100)}\u00a0%`;

export function bytes(count) {
  if (count < 1000) return `${count} B`;
  const [unit, size] = count < 1e6 ? ["kB", 1e3] : count < 1e9 ? ["MB", 1e6] : ["GB", 1e9];
  return `${(count / size).toFixed(count / size < 10 ? 1 : 0)} ${unit}`;
}

/** Seconds as 0:03.2, for positions in a video. */
export function clock(seconds, digits = 1) {
  const scaled = Math.round(seconds * 10 ** digits) / 10 ** digits;
  const minutes = Math.floor(scaled / 60);
  return `${minutes}:${(scaled - minutes * 60).toFixed(digits).padStart(digits ? digits + 3 : 2, "0")}`;
}

export const milliseconds = (ms) => (ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);

export const date = (text) =>
  new Intl.DateTimeFormat(document.documentElement.lang, { dateStyle: "medium", timeStyle: "short" }).format(new Date(text));
