// The permalink page: loads one analysis, or follows it to its end when it is not finished yet.

import { followJob, getDetection, url } from "./api.js";
import { h } from "./dom.js";
import { problem } from "./problem.js";
import { describe } from "./progress.js";
import { showResult } from "./result.js";
import { T } from "./strings.js";

const container = document.getElementById("result");
const { id } = container.dataset;
const UNFINISHED = 409;

async function load() {
  try {
    return await getDetection(id);
  } catch (error) {
    if (error.status !== UNFINISHED) throw error;
    const line = h("p", { class: "note", text: T.detection.loading });
    container.replaceChildren(line);
    const onUpdate = (job) => (line.textContent = describe(job));
    const job = await followJob(id, { signal: new AbortController().signal, onUpdate });
    if (job.state !== "done") throw job.error || { detail: T.job[job.state] };
    return getDetection(id);
  }
}

/** Why there is no result, under a heading, with the ways on from here. */
function failure(error) {
  return h(
    "section",
    { class: "dead-end", "aria-labelledby": "dead-end-title" },
    h("h2", { id: "dead-end-title", text: T.detection.failed }),
    problem(error),
    h(
      "div",
      { class: "row" },
      h("a", { class: "button button--primary", href: url(""), text: T.detection.start }),
      h("a", { class: "button", href: url("history"), text: T.detection.history }),
    ),
  );
}

container.replaceChildren(h("p", { class: "note", text: T.detection.loading }));
try {
  const detection = await load();
  document.title = T.detection.title(detection.name);
  showResult(container, detection, {
    onDeleted: () => container.replaceChildren(h("p", { class: "note", role: "status", text: T.detection.gone })),
  });
} catch (error) {
  container.setAttribute("aria-busy", "false");
  container.replaceChildren(failure(error));
}
