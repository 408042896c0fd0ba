// The panel: what is sent, how far it is, and what came of it.

import { nameOf, readMedium } from "./medium.js";
import { Failure, analyse, browser, hostPattern, settings } from "./server.js";

const outcome = document.getElementById("outcome");
const status = document.getElementById("status");
const percent = (p) => `${(100 * p).toFixed(0)} %`;

function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") element.textContent = value;
    else if (name === "onclick") element.addEventListener("click", value);
    else if (value !== null) element.setAttribute(name, value);
  }
  element.append(...children.filter(Boolean));
  return element;
}

function tell(text) {
  status.textContent = text;
}

/** What is said of one person or voice. */
function line(name, verdict) {
  const p = verdict.probability === null ? "" : ` (${percent(verdict.probability)})`;
  return h("li", { "data-tone": verdict.outcome, text: `${name}${p}: ${verdict.headline}` });
}

function showReport(blob, { report, page }, server) {
  const headline = report.overall ?? report.verdict;
  const picture = report.media.kind === "image" && h("img", { src: URL.createObjectURL(blob), alt: "What was checked" });
  const faces = report.faces.map((face) => line(`Person ${face.id + 1}`, face.verdict));
  if (report.speech) faces.push(line("Voice", report.speech.verdict));
  const { probability, interval } = report.verdict;
  outcome.replaceChildren(
    h("section", { class: "verdict", "data-tone": headline.outcome }, h("h1", { text: headline.headline }),
      report.provenance?.statement && h("p", { text: report.provenance.statement }),
      probability !== null && h("p", { text: `Probability of manipulation ${percent(probability)}${interval ? `, 95 % interval ${interval.map(percent).join(" to ")}` : ""}.` }),
      h("ul", {}, ...headline.reasons.map((reason) => h("li", { text: reason.text })))),
    picture,
    faces.length && h("ul", { class: "faces" }, ...faces),
    h("p", {}, h("a", { href: server + page, target: "_blank", rel: "noreferrer", text: "Open the whole result" })),
    h("p", { class: "small", text: "Evidence and no proof. Never decide about a person on it alone." }),
  );
  tell("Done.");
}

function showFailure(error, again) {
  const known = error instanceof Failure;
  if (!known) console.error(error);
  const allow = async () => {
    if (await browser.permissions.request({ origins: [hostPattern(error.allow)] })) again();
  };
  outcome.replaceChildren(
    h("section", { class: "verdict", role: "alert" }, h("h1", { text: "Not checked" }),
      h("p", { class: "why", text: known ? error.message : "Something went wrong inside the extension. Try again." })),
    h("p", { class: "row" },
      known && error.allow && h("button", { type: "button", onclick: allow, text: `Allow ${new URL(error.allow).host}` }),
      h("button", { type: "button", onclick: again, text: "Try again" }),
      h("button", { type: "button", onclick: () => browser.runtime.openOptionsPage(), text: "Options" })),
  );
  tell("");
}

async function run() {
  outcome.replaceChildren();
  try {
    const id = location.hash.slice(1);
    const given = (await browser.storage.session.get(id))[id];
    if (!given) throw new Failure("This panel has been open for too long. Right-click the picture or video again.");
    const chosen = await settings();
    tell("Reading the file …");
    const blob = await readMedium(given);
    tell(`Sending it to ${chosen.server} …`);
    showReport(blob, await analyse(blob, nameOf(given.src, blob.type), chosen, (stage) => tell(`Analysing: ${stage} …`)), chosen.server);
  } catch (error) {
    showFailure(error, run);
  }
}

run();
