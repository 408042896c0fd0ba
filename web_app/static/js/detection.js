// The permalink page: loads one analysis, or follows it to its end when it is not finished yet.

import { followJob, getDetection } from "./api.js";
import { h } from "./dom.js";
import { problem } from "./problem.js";
import { describe } from "./progress.js";
import { showResult } from "./result.js";
import { T } from "./strings.js";

const container = document.getElementById("result");
const { id } = container.dataset;
const UNFINISHED = new Set([404, 409]); // not finished, or not there: the job knows which

async function load() {
  try {
    return await getDetection(id);
  } catch (error) {
    if (!UNFINISHED.has(error.status)) throw error;
    const line = h("p", { class: "note", text: T.detection.loading });
    container.replaceChildren(line);
    const onUpdate = (job) => (line.textContent = describe(job));
    const job = await followJob(id, { signal: new AbortController().signal, onUpdate });
    if (job.state !== "done") throw job.error || { detail: T.job[job.state] };
    return getDetection(id);
  }
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
  container.replaceChildren(problem(error));
}
