// The REST API as functions. Every failure is an ApiError with a sentence, a remedy and a code, also when the server
// cannot be reached.

import { T } from "./strings.js";

const MOST_STREAMS = 2; // browsers allow six connections to one server over HTTP/1.1; the rest must stay free
const POLL_MS = 700;
const RETRIES = 8;
const FINAL = new Set(["done", "failed", "cancelled"]);
let openStreams = 0;

export class ApiError extends Error {
  constructor({ status = 0, code = "internal", detail, title, remedy = "", retryAfter = 0 }) {
    super(detail || title || T.error.unreadable.detail);
    Object.assign(this, { status, code, remedy, retryAfter });
  }
}

const unreachable = () => new ApiError({ code: "network", ...T.error.network });
const cancelled = () => new ApiError({ code: "cancelled", detail: T.job.cancelled });

/** An address below the prefix under which the pages are served. */
export const url = (path) => document.documentElement.dataset.base + path;

function parse(text, status, retryAfter = 0) {
  let body = null;
  try {
    body = text ? JSON.parse(text) : null;
  } catch {
    // a length above the limit is refused by the server or a proxy in front of it, in words of its own
    const [code, words] = status === 413 ? ["media_too_large", T.error.tooLarge] : ["unreadable", T.error.unreadable];
    throw new ApiError({ status, code, ...words });
  }
  if (status >= 400) throw new ApiError({ status, retryAfter, ...(body || T.error.unreadable) });
  return body;
}

async function call(method, path, body) {
  let response;
  let text;
  try {
    response = await fetch(url(path), {
      method,
      headers: { Accept: "application/json", ...(body ? { "Content-Type": "application/json" } : {}) },
      body: body ? JSON.stringify(body) : undefined,
    });
    text = await response.text();
  } catch {
    throw unreachable();
  }
  return parse(text, response.status);
}

const idPath = (kind, id) => `api/${kind}/${encodeURIComponent(id)}`;

export const getDetection = (id) => call("GET", idPath("detections", id));
export const deleteDetection = (id) => call("DELETE", idPath("detections", id));
/** Whether a worker runs; what cannot be found out counts as yes. */
export const hasWorker = () => fetch(url("api/ready")).then((answer) => answer.json()).then(({ workers }) => workers.length > 0).catch(() => true);
export const getJob = (id) => call("GET", idPath("jobs", id));
export const cancelJob = (id) => call("DELETE", idPath("jobs", id));
export const sendFeedback = (feedback) => call("POST", "api/feedback", feedback);
export const getHistory = (query) => call("GET", `api/history?${new URLSearchParams(query)}`);
export const clearHistory = () => call("DELETE", "api/history");
export const getVersions = (id) => call("GET", `${idPath("detections", id)}/versions`);
export const getSeen = (id) => call("GET", `${idPath("detections", id)}/seen`);
export const undoFeedback = (id, part) => call("DELETE", `${idPath("feedback", id)}?${new URLSearchParams(part)}`);
const closeupPath = (id, face) => `${idPath("detections", id)}/closeup?face=${face}`;
export const getCloseup = (id, face) => call("GET", closeupPath(id, face));
export const askCloseup = (id, face) => call("POST", closeupPath(id, face));
export const getStats = () => call("GET", "api/rl/stats");
export const startTraining = () => call("POST", "api/rl/retrain");
export const getTraining = (id) => call("GET", idPath("rl/retrain", id));
export const rollBack = (wanted) => call("POST", "api/rl/rollback", wanted);
export const getReview = (query) => call("GET", `api/rl/review?${new URLSearchParams(query)}`);
export const decideCase = (sha256, decision) => call("POST", idPath("rl/review", sha256), decision);
export const getCases = () => call("GET", "api/cases");
export const createCase = (values) => call("POST", "api/cases", values);
export const getCase = (id) => call("GET", idPath("cases", id));
export const changeCase = (id, values) => call("PATCH", idPath("cases", id), values);
export const deleteCase = (id, analyses) => call("DELETE", `${idPath("cases", id)}?analyses=${analyses ? 1 : 0}`);
const itemPath = (id, detection) => `${idPath("cases", id)}/items/${encodeURIComponent(detection)}`;
/** Without a note, the one that is there stays. */
export const putCaseItem = (id, detection, note) => call("PUT", itemPath(id, detection), { note });
export const removeCaseItem = (id, detection) => call("DELETE", itemPath(id, detection));
export const getFrames = (id) => call("GET", `${idPath("detections", id)}/frames`);
export const mediaUrl = (id) => url(`${idPath("detections", id)}/media`);
/** The status that the medium is answered with: 503 while its copy is made, 404 where there is none. */
export const mediaStatus = async (id) => (await fetch(mediaUrl(id), { method: "HEAD" })).status;
/** The report to keep; HTML is shown, for printing, the others are saved. */
export const reportUrl = (id, format) => url(`${idPath("detections", id)}/report?format=${format}${format === "html" ? "" : "&download=1"}`);
export const csvUrl = (query) => url(`api/history.csv?${new URLSearchParams(query)}`);

/** Send one file. `onProgress(sent, total)` counts bytes; resolves to the server's answer, a job or a finished report. */
export function upload(file, { signal, onProgress }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const form = new FormData();
    form.append("file", file, file.name);
    request.open("POST", url("api/detect"));
    request.setRequestHeader("Accept", "application/json");
    request.setRequestHeader("Prefer", "respond-async");
    request.upload.addEventListener("progress", (event) => onProgress(event.loaded, event.total || file.size));
    request.addEventListener("load", () => {
      try {
        resolve(parse(request.responseText, request.status, Number(request.getResponseHeader("Retry-After"))));
      } catch (error) {
        reject(error);
      }
    });
    request.addEventListener("error", () => reject(unreachable()));
    request.addEventListener("abort", () => reject(cancelled()));
    signal.addEventListener("abort", () => request.abort(), { once: true });
    request.send(form);
  });
}

/** Follow a close-up to its end by asking again and again; stops when `wanted()` says that nobody looks any more. */
export async function followCloseup(id, face, { wanted, onUpdate }) {
  let failures = 0;
  while (wanted()) {
    try {
      const closeup = await getCloseup(id, face);
      failures = 0;
      onUpdate(closeup);
      if (closeup.state === null || FINAL.has(closeup.state)) return;
    } catch (error) {
      failures += 1;
      if (error.status >= 400 || failures > RETRIES) throw error;
    }
    await new Promise((wake) => setTimeout(wake, POLL_MS * (1 + failures)));
  }
}

/** Follow a job to its end by server-sent events, or by asking again and again where those do not arrive. */
export async function followJob(id, { signal, onUpdate }) {
  const job = openStreams < MOST_STREAMS ? await stream(id, signal, onUpdate) : null;
  return job || poll(id, signal, onUpdate);
}

function stream(id, signal, onUpdate) {
  openStreams += 1;
  const source = new EventSource(url(`${idPath("jobs", id)}/events`));
  const ended = new Promise((resolve) => {
    source.addEventListener("message", (event) => {
      const job = JSON.parse(event.data);
      onUpdate(job);
      if (FINAL.has(job.state)) resolve(job);
    });
    source.addEventListener("error", () => resolve(null));
    signal.addEventListener("abort", () => resolve(null), { once: true });
  });
  return ended.finally(() => {
    openStreams -= 1;
    source.close();
  });
}

async function poll(id, signal, onUpdate) {
  let failures = 0;
  while (!signal.aborted) {
    try {
      const job = await getJob(id);
      failures = 0;
      onUpdate(job);
      if (FINAL.has(job.state)) return job;
    } catch (error) {
      failures += 1;
      if (error.status === 404 || error.status === 401 || error.status === 403) throw error;
      if (failures > RETRIES) throw new ApiError({ code: "connection_lost", ...T.error.lost });
    }
    await new Promise((wake) => setTimeout(wake, POLL_MS * (1 + failures)));
  }
  throw cancelled();
}
