// The history: filters and page live in the address, so that reload and the back button keep them.

import { clearHistory, csvUrl, getHistory, getVersions, url } from "./api.js";
import { confirmClear, confirmDelete } from "./confirm.js";
import { announce, date, h, icon, numberOf } from "./dom.js";
import { problem } from "./problem.js";
import { T } from "./strings.js";
import { chip } from "./verdict.js";

const PER_PAGE = 20;
const TYPING_MS = 350; // pause in typing after which the text filter is used
const FILTERS = ["prediction", "kind", "text", "since", "until"];
const container = document.getElementById("history");
const pager = document.getElementById("pager");
const form = document.getElementById("filters");
const clear = document.getElementById("clear");
const csv = document.getElementById("csv");

function readState() {
  const query = new URLSearchParams(location.search);
  const state = { page: Math.max(1, Number.parseInt(query.get("page"), 10) || 1) };
  for (const name of FILTERS) state[name] = query.get(name) || "";
  return state;
}

function go(changes) {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries({ ...readState(), ...changes })) if (value && value !== 1) query.set(key, value);
  history.pushState(null, "", `${location.pathname}${query.size ? `?${query}` : ""}`);
  load();
}

const state = (item) =>
  item.prediction
    ? chip(item.overall || item.prediction)
    : h("span", { class: "chip", "data-tone": item.state === "failed" ? "failed" : "no_face", text: T.history.states[item.state] });

const permalink = (id) => url(`detections/${encodeURIComponent(id)}`);

/** Of the networks that judged a file of this kind: those of faces, of its voice, or both. */
const judges = (kind, { model_version: faces, speech_version: voice }) => [kind !== "audio" && faces, voice].filter(Boolean).join(", ");

function preview(item) {
  const kind = icon(item.kind || "image");
  if (!item.thumbnail) return h("span", { class: "entries__preview" }, kind);
  const picture = h("img", { src: item.thumbnail, alt: "", loading: "lazy", width: 48, height: 48 });
  picture.addEventListener("error", () => picture.replaceWith(kind));
  return h("span", { class: "entries__preview" }, picture);
}

/** What other versions said of the same file, as a row below the one it belongs to. */
async function compare(item, row, button) {
  const open = button.getAttribute("aria-expanded") === "true";
  button.setAttribute("aria-expanded", String(!open));
  if (open) {
    row.nextElementSibling.remove();
    return;
  }
  const cell = h("td", { colspan: 6, class: "entries__versions" });
  row.after(h("tr", { class: "entries__more" }, cell));
  try {
    const { items } = await getVersions(item.id);
    const lines = items.map((other) =>
      h(
        "li",
        { "aria-current": other.id === item.id ? "true" : null },
        h("code", { text: judges(item.kind, other) }),
        chip(other.overall || other.prediction),
        h("span", { text: numberOf(other) }),
        h("a", { href: permalink(other.id), text: date(other.created) }),
      ),
    );
    cell.replaceChildren(h("p", { class: "fine", text: items.length > 1 ? T.history.sameFile(items.length) : T.history.onlyOnce }), h("ul", { class: "versions" }, lines));
  } catch (error) {
    cell.replaceChildren(problem(error));
  }
}

function row(item) {
  const remove = async () => {
    if (!(await confirmDelete(item.id, item.name))) return;
    await load();
    announce(T.history.deleted(item.name));
    document.getElementById("main").focus();
  };
  const versions = h("button", { class: "button button--bare", type: "button", title: T.history.compare, "aria-label": T.action.of(T.history.compare, item.name), "aria-expanded": "false" }, icon("versions"));
  const line = h(
    "tr",
    {},
    h("td", { class: "entries__name" }, h("div", {}, preview(item), h("a", { class: "filename", href: permalink(item.id), title: item.name, text: item.name }))),
    h("td", { class: "entries__verdict" }, state(item), item.outlook && h("span", { class: "entries__answer fine", text: T.history.outlook[item.outlook] })),
    h("td", { class: "entries__number", text: numberOf(item) }),
    h("td", { class: "entries__date" }, h("time", { datetime: item.created, text: date(item.created) })),
    h("td", { class: "entries__model" }, item.model_version && h("code", { text: judges(item.kind, item) })),
    h(
      "td",
      { class: "entries__actions" },
      item.prediction && versions,
      h("button", { class: "button button--bare", type: "button", title: T.action.remove, "aria-label": T.action.of(T.action.remove, item.name), onclick: remove }, icon("trash")),
    ),
  );
  versions.addEventListener("click", () => compare(item, line, versions));
  return line;
}

function table(answer) {
  const from = (answer.page - 1) * answer.per_page + 1;
  const heads = ["name", "verdict", "probability", "date", "model", "actions"];
  return h(
    "table",
    { class: "entries card" },
    h("caption", { text: (answer.more ? T.history.captionMore : T.history.caption)(from, from + answer.items.length - 1, answer.total) }),
    h("thead", {}, h("tr", {}, heads.map((key) => h("th", { scope: "col" }, h("span", { class: key === "actions" ? "visually-hidden" : null, text: T.history[key] }))))),
    h("tbody", {}, answer.items.map(row)),
  );
}

function empty(filtered) {
  return h(
    "div",
    { class: "card empty" },
    icon("no_face"),
    h("p", { text: filtered ? T.history.emptyFiltered : T.history.empty }),
    !filtered && h("a", { class: "button button--primary", href: url(""), text: T.history.start }),
  );
}

function showPager({ page, per_page: perPage, total, more }) {
  const pages = Math.max(1, Math.ceil(total / perPage));
  const turn = (to, text) => h("button", { class: "button", type: "button", disabled: to < 1 || to > pages, text, onclick: () => go({ page: to }) });
  pager.hidden = pages < 2;
  pager.replaceChildren(turn(page - 1, T.history.previous), h("span", { text: more ? T.history.pageMore(page) : T.history.page(page, pages) }), turn(page + 1, T.history.next));
}

async function load() {
  const wanted = readState();
  for (const name of FILTERS) if (document.activeElement !== form.elements[name]) form.elements[name].value = wanted[name];
  container.setAttribute("aria-busy", "true");
  const chosen = Object.fromEntries(FILTERS.filter((name) => wanted[name]).map((name) => [name, wanted[name]]));
  const filtered = Object.keys(chosen).length > 0;
  try {
    const answer = await getHistory({ page: wanted.page, per_page: PER_PAGE, ...chosen });
    const last = Math.max(1, Math.ceil(answer.total / answer.per_page));
    if (wanted.page > last) return go({ page: last });
    container.replaceChildren(answer.items.length ? table(answer) : empty(filtered));
    clear.hidden = !answer.items.length && !filtered;
    form.hidden = clear.hidden; // nothing to look for
    csv.hidden = !answer.items.length;
    csv.href = csvUrl(chosen);
    showPager(answer);
  } catch (error) {
    pager.hidden = true;
    container.replaceChildren(problem(error));
  }
  container.setAttribute("aria-busy", "false");
}

const filter = () => go({ page: 1, ...Object.fromEntries(new FormData(form)) });
let typing = 0;
form.addEventListener("input", (event) => {
  clearTimeout(typing);
  typing = setTimeout(filter, event.target.name === "text" ? TYPING_MS : 0);
});
form.addEventListener("submit", (event) => event.preventDefault());
clear.addEventListener("click", async () => {
  let count = 0;
  const gone = await confirmClear(async () => {
    count = (await clearHistory()).deleted;
  });
  if (!gone) return;
  go(Object.fromEntries([["page", 1], ...FILTERS.map((name) => [name, ""])]));
  announce(T.history.cleared(count));
  document.getElementById("main").focus();
});
window.addEventListener("popstate", load);
container.replaceChildren(h("p", { class: "note", text: T.history.loading }));
load();
