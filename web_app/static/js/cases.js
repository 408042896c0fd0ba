// Cases: the list with a form for a new one, or one case with its files, notes, report and export.

import { changeCase, createCase, deleteCase, getCase, getCases, getHistory, putCaseItem, removeCaseItem, upload, url } from "./api.js";
import { askFirst } from "./confirm.js";
import { announce, date, h, icon, numberOf } from "./dom.js";
import { problem } from "./problem.js";
import { T } from "./strings.js";
import { chip } from "./verdict.js";

const POLL_MS = 1500;
const OFFERED = 20; // latest analyses to choose from
const container = document.getElementById("cases");
const open = new Set(["queued", "running"]);
const OF_THE_FILE = new Set([400, 413, 415, 422]); // the next file may well be taken; any other failure meets all alike
const caseUrl = (id) => url(`cases/${encodeURIComponent(id)}`);

/** Run what a button or form asks for; what fails is shown in `place`. */
const attempt = (place, run) => async (event) => {
  event?.preventDefault();
  place.replaceChildren();
  try {
    await run(event);
  } catch (error) {
    place.replaceChildren(problem(error));
  }
};

function field(label, control) {
  return h("label", { class: "case__field" }, h("span", { text: label }), control);
}

function caseForm(given, button, save) {
  const title = h("input", { type: "text", name: "title", required: true, maxlength: 200, value: given.title });
  const notes = h("textarea", { name: "notes", rows: 4, maxlength: 10000 });
  notes.value = given.notes;
  const failure = h("div", {});
  const send = attempt(failure, () => save({ title: title.value, notes: notes.value }));
  return h("form", { class: "card case__form", onsubmit: send }, field(T.cases.name, title), field(T.cases.notes, notes),
    failure, h("button", { class: "button button--primary", type: "submit", text: button }));
}

async function showList() {
  const adding = new URLSearchParams(location.search).get("add");
  const { items } = await getCases();
  const put = async (id) => {
    if (adding) await putCaseItem(id, adding);
    location.assign(caseUrl(id));
  };
  const row = (one) => {
    const failure = h("div", {});
    return h("li", { class: "card case__line" },
      h("a", { class: "case__name", href: caseUrl(one.id), text: one.title }),
      h("span", { class: "fine", text: `${T.cases.count(one.count)} · ${date(one.created)}` }),
      adding && h("button", { class: "button", type: "button", text: T.cases.add, "aria-label": T.action.of(T.cases.add, one.title), onclick: attempt(failure, () => put(one.id)) }),
      failure);
  };
  container.replaceChildren(
    h("div", { class: "intro" }, h("h1", { text: T.cases.title }), h("p", { class: "lede", text: adding ? T.cases.adding : T.cases.lede })),
    items.length ? h("ul", { class: "case__list" }, items.map(row)) : h("p", { class: "note", text: T.cases.empty }),
    h("h2", { text: T.cases.new }),
    caseForm({ title: "", notes: "" }, T.cases.create, async (values) => put((await createCase(values)).id)),
  );
}

function itemLine(one, item, reload) {
  const failure = h("div", {});
  const note = h("textarea", { rows: 2, maxlength: 2000, placeholder: T.cases.notes, "aria-label": T.cases.note(item.name) });
  note.value = item.note;
  note.addEventListener("change", attempt(failure, async () => {
    await putCaseItem(one.id, item.id, note.value);
    announce(T.cases.saved);
  }));
  const out = attempt(failure, async () => {
    await removeCaseItem(one.id, item.id);
    await reload();
    announce(T.cases.taken(item.name));
    document.getElementById("main").focus();
  });
  return h("li", { class: "card case__line" },
    h("a", { class: "case__name filename", href: url(`detections/${encodeURIComponent(item.id)}`), text: item.name }),
    item.prediction ? chip(item.overall || item.prediction) : h("span", { class: "chip", "data-tone": item.state === "failed" ? "failed" : "no_face", text: T.history.states[item.state] }),
    h("span", { class: "fine", text: numberOf(item) }),
    h("button", { class: "button button--bare", type: "button", title: T.cases.out, "aria-label": T.action.of(T.cases.out, item.name), onclick: out }, icon("trash")),
    item.error && problem(item.error), note, failure);
}

let sending = false;
addEventListener("beforeunload", (event) => sending && event.preventDefault());

/** Files from this machine, and analyses that are there already; `left` are files that can be sent again. */
function adder(one, reload, { refused = [], left = [] }) {
  const failure = h("div", {});
  const chosen = h("input", { type: "file", multiple: true, class: "visually-hidden", id: "case-files" });
  const tell = (told, files) => failure.replaceChildren(...told, ...(files.length ? [
    h("p", { class: "filename", text: T.cases.left(files.map((file) => file.name).join(", ")) }),
    h("button", { class: "button", type: "button", text: T.action.retry, onclick: attempt(failure, () => send(files)) }),
  ] : []));
  const send = async (files) => {
    const told = [];
    sending = true;
    for (const [index, file] of files.entries()) {
      failure.replaceChildren(h("p", { class: "fine", role: "status", text: T.cases.sending(file.name) }));
      try {
        const { id } = await upload(file, { signal: new AbortController().signal, onProgress: () => {} });
        await putCaseItem(one.id, id);
      } catch (error) {
        if (OF_THE_FILE.has(error.status)) {
          told.push(h("p", { class: "filename", text: file.name }), problem(error));
          continue;
        }
        sending = false;
        told.push(problem(error));
        await reload({ refused: told, left: files.slice(index) }).catch(() => tell(told, files.slice(index)));
        return;
      }
    }
    sending = false;
    await reload({ refused: told });
  };
  tell(refused, left);
  chosen.addEventListener("change", attempt(failure, () => send([...chosen.files])));
  const inside = new Set(one.items.map((item) => item.id));
  const offers = h("ul", { class: "case__list" });
  const more = h("details", {}, h("summary", { text: T.cases.from_history }), offers);
  more.addEventListener("toggle", attempt(failure, async () => {
    if (!more.open) return;
    const { items } = await getHistory({ per_page: OFFERED });
    offers.replaceChildren(...items.filter((item) => !inside.has(item.id)).map((item) =>
      h("li", { class: "case__line" }, h("span", { class: "case__name filename", text: item.name }), h("span", { class: "fine", text: date(item.created) }),
        h("button", { class: "button", type: "button", text: T.cases.put, "aria-label": T.action.of(T.cases.put, item.name), onclick: attempt(failure, async () => {
          await putCaseItem(one.id, item.id);
          await reload();
        }) }))));
  }));
  return h("div", { class: "case__add" }, chosen, h("label", { class: "button", for: "case-files" }, icon("drop"), h("span", { text: T.cases.upload })), more, failure);
}

let waiting = 0;

async function showCase(id, added = {}) {
  clearTimeout(waiting);
  const one = await getCase(id);
  const reload = (told = added) => showCase(id, told);
  const remove = async () => {
    const all = h("input", { type: "checkbox" });
    const words = { title: T.cases.deleteTitle, text: T.cases.deleteText, yes: T.cases.delete };
    const more = one.count > 0 && h("label", { class: "case__check" }, all, h("span", { text: T.cases.deleteAll(one.count) }));
    if (await askFirst({ ...words, more, run: () => deleteCase(id, all.checked) })) location.assign(url("cases"));
  };
  const to = (path, name) => h("a", { class: "button", href: url(`api/cases/${encodeURIComponent(id)}/${path}`) }, icon("download"), h("span", { text: name }));
  document.title = `${one.title} · Telltale`;
  container.replaceChildren(
    h("p", {}, h("a", { href: url("cases"), text: T.cases.back })),
    h("div", { class: "intro" }, h("h1", { text: one.title })),
    caseForm(one, T.cases.save, async (values) => {
      await changeCase(id, values);
      await reload();
      announce(T.cases.saved);
    }),
    h("h2", { text: T.cases.files }),
    one.items.length ? h("ul", { class: "case__list" }, one.items.map((item) => itemLine(one, item, reload))) : h("p", { class: "note", text: T.cases.none }),
    adder(one, reload, added),
    h("nav", { class: "row actions", "aria-label": T.cases.actions },
      to("report?format=html", T.cases.report.html), to("report?format=pdf&download=1", T.cases.report.pdf),
      to("report?format=json&download=1", T.cases.report.json), to("export", T.cases.export),
      h("button", { class: "button button--delete", type: "button", onclick: remove }, icon("trash"), h("span", { text: T.cases.delete }))),
  );
  const later = () => {
    waiting = setTimeout(() => (container.contains(document.activeElement) ? later() : reload().catch(later)), POLL_MS);
  };
  if (one.items.some((item) => open.has(item.state))) later();
}

try {
  await (container.dataset.id ? showCase(container.dataset.id) : showList());
} catch (error) {
  container.append(problem(error)); // below the heading
}
container.setAttribute("aria-busy", "false");
