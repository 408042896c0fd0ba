// A job's state in words.

import { share } from "./dom.js";
import { T } from "./strings.js";

/** One short phrase for a job as the API describes it. */
export function describe(job) {
  if (job.state === "queued") return Number.isInteger(job.position) ? T.job.position(job.position) : T.job.queued;
  if (job.state === "running") return T.job.running(T.job.stage[job.stage] || T.job.stage.decode, share(job.fraction || 0));
  if (job.state === "done") return T.history.states.done;
  return T.job[job.state];
}
