// Model learning progress: start a training, follow it, and serve another version. The figures come with the page.

import { getStats, getTraining, rollBack, startTraining } from "./api.js";
import { announce, h, share } from "./dom.js";
import { problem } from "./problem.js";
import { T } from "./strings.js";

const LOOK_MS = 700;
const SWAP_LOOKS = 120;
const page = document.getElementById("learning");
const outcome = document.getElementById("outcome");
const train = document.getElementById("train");
const choices = [...document.querySelectorAll("[data-version], [data-back]")];
const buttons = [train, ...choices].filter(Boolean);
const pause = () => new Promise((wake) => setTimeout(wake, LOOK_MS));

function busy(on) {
  for (const button of buttons) button.disabled = on;
}

function say(text) {
  outcome.replaceChildren(h("p", { class: "note", text }));
  announce(text);
}

function fail(error) {
  busy(false);
  outcome.replaceChildren(problem(error));
}

// The page is drawn by the server, so it shows the new figures after a reload; the outcome is kept across it.
function reload(text) {
  sessionStorage.setItem("learning-outcome", text);
  location.reload();
}

function ended({ promoted, reason, version }) {
  if (!version) return reason;
  return promoted ? T.learning.outcome.promoted(version, reason) : T.learning.outcome.rejected(version, reason);
}

async function follow(id) {
  busy(true);
  for (;;) {
    const job = await getTraining(id);
    if (job.state === "done") {
      const parts = [job.result, job.result.faces, job.result.speech]; // of faces and voices, where there are both
      reload(parts.filter(Boolean).map(ended).join(" "));
      return;
    }
    if (job.state === "failed") throw job.error;
    if (job.state === "cancelled") throw new Error(T.learning.outcome.cancelled);
    say(job.state === "queued" ? T.learning.outcome.queued : T.learning.outcome.running(share(job.fraction)));
    await pause();
  }
}

/** Serve a version, or of a part the one before. */
async function serve({ version, back: part }) {
  busy(true);
  const back = await rollBack(version ? { version } : { part });
  say(T.learning.outcome.changing(back.version));
  for (let look = 0; look < SWAP_LOOKS; look += 1) {
    const stats = await getStats();
    if (!stats.loaded.length || [stats.model_version, stats.speech_version].includes(back.version)) break;
    await pause();
  }
  reload(T.learning.outcome.serves(back.version));
}

const guarded = (work) => work.catch(fail);

train?.addEventListener("click", () => {
  busy(true);
  guarded(startTraining().then((job) => follow(job.id)));
});
for (const button of choices) button.addEventListener("click", () => guarded(serve(button.dataset)));

const kept = sessionStorage.getItem("learning-outcome");
if (kept) {
  sessionStorage.removeItem("learning-outcome");
  say(kept);
}
if (page.dataset.running) guarded(follow(page.dataset.running));
