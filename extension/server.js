// The user's own server: where it is, how it is asked, and what its refusals mean in plain words.

export const browser = globalThis.browser ?? globalThis.chrome;
export const DEFAULTS = { server: "http://localhost:5000", key: "" };
const POLL_MS = 700;

/** A failure with a sentence for people; `allow` is an address that the user may open to the extension. */
export class Failure extends Error {
  constructor(sentence, { allow = null } = {}) {
    super(sentence);
    this.allow = allow;
  }
}

/** Server and key as the options page keeps them, in this browser only. */
export const settings = () => browser.storage.local.get(DEFAULTS);

/** The pattern of every address of a URL's host; browsers know no ports in patterns. */
export const hostPattern = (url) => `${new URL(url).protocol}//${new URL(url).hostname}/*`;

export const mayAsk = (url) => browser.permissions.contains({ origins: [hostPattern(url)] });

/** The answer of the API, as JSON. Throws a Failure for everything else. */
export async function ask(path, { server, key }, options = {}) {
  if (!(await mayAsk(server)))
    throw new Failure(`The browser does not let this extension ask ${server} yet.`, { allow: server });
  const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  let answer;
  try {
    answer = await fetch(server + path, { ...options, headers, redirect: "error" });
  } catch {
    throw new Failure(`No Telltale server answers at ${server}. Start it, or change the address in the options.`);
  }
  const said = await answer.json().catch(() => null);
  if (answer.ok && said !== null) return said;
  throw new Failure(sentence(answer, said, key));
}

function sentence(answer, problem, key) {
  const wait = answer.headers.get("Retry-After");
  if (answer.status === 401)
    return key
      ? "The server does not know this API key: it is wrong, expired or revoked. Put another one into the options."
      : "The server asks for an API key. Put one into the options; whoever runs the server makes it.";
  if (answer.status === 413) return "The file is larger than the server takes ([media] max_file_mb in its config.ini).";
  if (answer.status === 429) return `The server has too much to do at the moment. Try again in ${wait ?? "a few"} seconds.`;
  if (problem?.detail) return [problem.detail, problem.remedy].filter(Boolean).join(" ");
  return `The server answered ${answer.status}, and nothing that can be understood. Is it Telltale?`;
}

/** Send a file and wait for its report; `tell` hears of each stage. */
export async function analyse(blob, name, chosen, tell) {
  const body = new FormData();
  body.append("file", blob, name);
  const accepted = await ask("/api/detect?wait=0", chosen, { method: "POST", body });
  if (accepted.verdict) return { report: accepted, page: `/detections/${accepted.id}` };
  for (;;) {
    const job = await ask(`/api/jobs/${accepted.id}`, chosen);
    if (job.state === "done") return { report: job.result, page: `/detections/${accepted.id}` };
    if (job.state === "failed") throw new Failure([job.error.detail, job.error.remedy].filter(Boolean).join(" "));
    if (job.state === "cancelled") throw new Failure("The analysis was cancelled on the server.");
    tell(job.state === "queued" ? "waiting for its turn" : (job.stage ?? "analysing"));
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}
