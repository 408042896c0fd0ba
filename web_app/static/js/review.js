// The review: one card per medium with all that was said about it, and the moderator's word.

import { decideCase, getReview } from "./api.js";
import { announce, date, h, percent } from "./dom.js";
import { problem } from "./problem.js";
import { T } from "./strings.js";

const PER_PAGE = 10;
const LOOK_MS = 1000;
const LOOKS = 60;
const cases = document.getElementById("cases");
const pager = document.getElementById("pager");
const form = document.getElementById("filters");
let page = 1;

function medium(item) {
  if (!item.media) return h("p", { class: "note", text: T.review.gone });
  const src = new URL(item.media, location.href).href;
  return item.kind === "image"
    ? h("img", { src, alt: T.review.medium, loading: "lazy" })
    : h(item.kind, { src, controls: true, preload: "metadata", "aria-label": T.review.medium });
}

function vote(said) {
  const p = said.fake_probability;
  const shown = p === null ? T.verdict.short[said.prediction] : T.review.shown(T.verdict.short[said.prediction], percent(p));
  return h(
    "li",
    { class: "case__vote", "data-tone": said.actual },
    h("p", {}, h("strong", { text: T.review.says[said.actual](said.user) }), " ", said.trusted ? T.review.trusted : null),
    h("p", { class: "fine", text: `${shown} · ${said.model_version} · ${date(said.created)}` }),
    said.note && h("p", { text: T.review.note(said.note) }),
    h("p", { class: "fine", text: T.review.state(T.review.states[said.state], said.reason || "") }),
  );
}

function decided(decision) {
  if (!decision) return null;
  const text = decision.label ? T.review.decided[decision.decision](T.review.labels[decision.label]) : T.review.decided.all;
  return h("p", { class: "note", text });
}

const states = (item) => item.votes.map((said) => said.state).join();

/** Wait until the worker, in an idle moment, has judged by a decision; after a minute the reader sees what there is. */
async function judged(item) {
  const query = { state: form.elements.state.value, page, per_page: PER_PAGE };
  for (let look = 0; look < LOOKS; look += 1) {
    await new Promise((wake) => setTimeout(wake, LOOK_MS));
    const found = (await getReview(query)).items.find((other) => other.media_sha256 === item.media_sha256);
    if (!found || states(found) !== states(item)) return;
  }
}

function card(item, number) {
  const note = h("textarea", { rows: 2, maxlength: 1000 });
  const failure = h("div", {});
  const labels = [...new Set(item.votes.map((said) => said.actual))].sort();
  const send = async (decision, label) => {
    for (const button of buttons) button.disabled = true;
    const text = note.value.trim();
    try {
      await decideCase(item.media_sha256, { decision, ...(label ? { label } : {}), ...(text ? { note: text } : {}) });
      announce(T.review.saved);
      failure.replaceChildren(h("p", { class: "note", text: T.review.saved }));
      await judged(item);
      load();
    } catch (error) {
      for (const button of buttons) button.disabled = false;
      failure.replaceChildren(problem(error));
    }
  };
  const buttons = [
    ...labels.map((label) => h("button", { class: "button", type: "button", text: T.review.accept[label], onclick: () => send("accept", label) })),
    h("button", { class: "button button--danger", type: "button", text: T.review.reject, onclick: () => send("reject") }),
  ];
  const title = `case-${number}`;
  return h(
    "section",
    { class: "card panel case", "aria-labelledby": title, "data-sha256": item.media_sha256 },
    h("div", { class: "case__media" }, medium(item)),
    h(
      "div",
      {},
      h("h2", { id: title, text: T.review.case(number) }),
      h("p", { class: "fine" }, h("code", { text: item.media_sha256.slice(0, 16) })),
      item.part && h("p", { class: "note", text: T.review.voice }),
      item.learnable && h("p", { class: "note", text: item.learnable }),
      decided(item.decision),
      h("ul", { class: "case__votes" }, item.votes.map(vote)),
      h("label", { class: "case__note" }, h("span", { text: T.review.noteLabel }), note),
      h("div", { class: "row" }, buttons),
      failure,
    ),
  );
}

function showPager(answer) {
  const pages = Math.max(1, Math.ceil(answer.total / answer.per_page));
  const turn = (to, text) => h("button", { class: "button", type: "button", disabled: to < 1 || to > pages, text, onclick: () => go(to) });
  pager.hidden = pages < 2;
  pager.replaceChildren(turn(page - 1, T.history.previous), h("span", { text: T.history.page(page, pages) }), turn(page + 1, T.history.next));
}

function go(to) {
  page = to;
  load();
}

async function load() {
  cases.setAttribute("aria-busy", "true");
  const state = form.elements.state.value;
  try {
    const answer = await getReview({ state, page, per_page: PER_PAGE });
    const last = Math.max(1, Math.ceil(answer.total / answer.per_page));
    if (page > last) return go(last);
    const first = (page - 1) * answer.per_page + 1;
    const shown = answer.items.map((item, index) => card(item, first + index));
    cases.replaceChildren(...(shown.length ? shown : [h("p", { class: "note", text: T.review.none })]));
    showPager(answer);
  } catch (error) {
    pager.hidden = true;
    cases.replaceChildren(problem(error));
  }
  cases.setAttribute("aria-busy", "false");
}

form.addEventListener("change", () => go(1));
form.addEventListener("submit", (event) => event.preventDefault());
const asked = new URLSearchParams(location.search).get("state");
if ([...form.elements.state.options].some((option) => option.value === asked)) form.elements.state.value = asked;
load();
