// A closer look at one face: heatmaps of the networks over the picture, and the verdict under harmless changes. Both
// are computed when the reader asks for them.

import { askCloseup, followCloseup } from "./api.js";
import { announce, h, percent, share } from "./dom.js";
import { problem } from "./problem.js";
import { describe } from "./progress.js";
import { T } from "./strings.js";
import { chip } from "./verdict.js";

const OPACITY = 0.75;

function judgement(map) {
  if (!map.heatmap) return T.closeup.empty;
  return map.faithful ? T.closeup.faithful(map.beaten, map.masks) : T.closeup.unfaithful(map.beaten, map.masks);
}

/** The networks to choose from, the slider, and what the chosen map is worth. */
function heatmaps(detection, face, result, showMap) {
  const name = `map-${face.id}`;
  const sentence = h("p", { class: "fine closeup__worth", id: `${name}-worth` });
  const method = h("p", { class: "fine" });
  const slider = h("input", { type: "range", min: 10, max: 100, step: 5, value: OPACITY * 100, "aria-describedby": `${name}-worth` });
  const field = h("label", { class: "closeup__slider" }, h("span", { text: T.closeup.opacity }), slider);
  let chosen = null;

  const draw = () => {
    const usable = Boolean(chosen?.heatmap) && chosen.faithful;
    slider.disabled = !usable;
    field.toggleAttribute("data-off", !usable);
    showMap(usable ? { url: chosen.heatmap, square: result.square, time: result.time_s, opacity: slider.value / 100 } : null);
  };
  const choose = (map) => {
    chosen = map;
    sentence.textContent = map ? judgement(map) : T.closeup.none;
    method.textContent = map?.heatmap ? T.closeup.method(map.method, map.gain.toFixed(2), map.random_gain.toFixed(2)) : "";
    draw();
  };
  slider.addEventListener("input", draw);
  const option = (map, text) =>
    h(
      "label",
      { class: "choice", "data-off": Boolean(map) && !(map.heatmap && map.faithful) },
      h("input", { type: "radio", name, checked: !map, onchange: () => choose(map) }),
      h("span", { text }),
    );
  choose(null);
  return h(
    "fieldset",
    { class: "closeup__maps" },
    h("legend", { text: T.closeup.maps }),
    h("div", { class: "choices" }, option(null, T.closeup.off), result.maps.map((map) => option(map, map.title))),
    field,
    sentence,
    method,
    detection.media.kind === "video" && h("p", { class: "fine", text: T.closeup.oneFrame }),
  );
}

function stability(result) {
  const flips = result.trials.filter((trial) => trial.flipped);
  const row = (trial) =>
    h(
      "tr",
      {},
      h("th", { scope: "row", text: T.closeup.change[trial.code] || trial.title }),
      h("td", {}, chip(trial.outcome)),
      h("td", { class: "times__value", text: percent(trial.probability) }),
    );
  return h(
    "div",
    { class: "closeup__stability" },
    h(
      "table",
      { class: "times" },
      h("caption", { text: T.closeup.stability }),
      h("thead", { class: "visually-hidden" }, h("tr", {}, T.closeup.columns.map((text) => h("th", { scope: "col", text })))),
      h("tbody", {}, result.trials.map(row)),
    ),
    h("p", { class: "fine", text: flips.length ? T.closeup.flips(flips.length) : T.closeup.stable }),
  );
}

/** Whether the lips fit the voice; nothing for a medium without sound. */
function lips({ lips: found }) {
  if (!found) return null;
  const parts = found.spans.map(([first, last]) => T.closeup.part(first.toFixed(1), last.toFixed(1))).join(", ");
  return h(
    "div",
    { class: "closeup__lips" },
    h("h5", { text: T.closeup.lips }),
    h("p", { text: found.text }),
    found.correlation !== null && h("p", { class: "fine", text: T.closeup.correlation(found.correlation.toFixed(2), parts) }),
  );
}

/** The part of a face's panel; {element, open()}, where `open` is called whenever the face is chosen. */
export function closeupPanel(detection, face, showMap) {
  const body = h("div", { class: "closeup__body" });
  const element = h("section", { class: "closeup", "aria-labelledby": `closeup-${face.id}` }, h("h4", { class: "section-title", id: `closeup-${face.id}`, text: T.closeup.title }), body);
  let state = "new"; // then asking, following, done
  let refreshMap = () => {};

  const wanted = () => element.isConnected && !element.closest("[hidden]");
  const fail = (error) => {
    state = "new";
    body.replaceChildren(problem(error), ...(error.code === "not_available" ? [] : [offer()]));
  };

  function offer() {
    return h("div", {}, h("p", { class: "fine", text: T.closeup.lede }), h("button", { class: "button", type: "button", text: T.closeup.ask, onclick: ask }));
  }

  function show(closeup) {
    if (closeup.state === null) {
      body.replaceChildren(offer());
    } else if (closeup.state === "done") {
      state = "done";
      const { result } = closeup;
      const old = result.model_version !== detection.model_version;
      const maps = heatmaps(detection, face, result, showMap);
      refreshMap = () => maps.querySelector("input:checked").dispatchEvent(new Event("change"));
      body.replaceChildren(...[maps, stability(result), lips(result)].filter(Boolean));
      if (old) body.append(h("p", { class: "fine", text: T.closeup.otherVersion(result.model_version) }));
    } else if (closeup.state === "failed" || closeup.state === "cancelled") {
      fail(closeup.error || { detail: T.job[closeup.state] });
    } else {
      progress(closeup);
    }
  }

  function progress(closeup) {
    let bar = body.querySelector(".progress");
    if (!bar) {
      bar = h("div", { class: "progress", role: "progressbar", "aria-label": T.closeup.title, "aria-valuemin": 0, "aria-valuemax": 100 }, h("span", { class: "progress__fill" }));
      body.replaceChildren(h("p", { class: "fine closeup__line" }), bar);
    }
    bar.dataset.step = closeup.state === "queued" ? "queue" : "analyse";
    bar.setAttribute("aria-valuenow", String(Math.round(closeup.fraction * 100)));
    bar.firstChild.style.width = share(closeup.fraction).replace("\u00a0", "");
    body.querySelector(".closeup__line").textContent = describe(closeup);
  }

  async function follow() {
    state = "following";
    try {
      await followCloseup(detection.id, face.id, { wanted, onUpdate: show });
      if (state === "following") state = "new";
    } catch (error) {
      fail(error);
    }
  }

  async function ask() {
    state = "asking";
    body.querySelectorAll("button").forEach((button) => (button.disabled = true));
    try {
      show(await askCloseup(detection.id, face.id));
    } catch (error) {
      fail(error);
      return;
    }
    await follow();
    if (state === "done") announce(T.closeup.ready);
  }

  const open = () => {
    if (state === "new") requestAnimationFrame(follow);
    else if (state === "done") refreshMap();
  };
  return { element, open };
}
