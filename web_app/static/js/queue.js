// One chosen file on its way: check, upload, queue, analysis, end. Owns the file's card in the list.

import { cancelJob, followJob, getDetection, hasWorker, upload } from "./api.js";
import { announce, bytes, h, icon, share } from "./dom.js";
import { checkFile } from "./files.js";
import { problem } from "./problem.js";
import { describe } from "./progress.js";
import { T } from "./strings.js";
import { chip } from "./verdict.js";

const LASTING = /^(unsupported_media|media_|empty)/; // codes of what lies in the file: another try ends the same
const PATIENCE = 10; // how often a server that is too busy for a file is asked again
const LOOK_MS = 5000; // between looks whether anybody works, while a file waits
const STEPS = ["upload", "queue", "analyse", "verdict"];
const step = (job) => ({ queued: "queue", running: job.stage === "decide" ? "verdict" : "analyse" })[job.state];

/** A card for one file; `onShow(detection)` when the reader asks for its result, `onRemove(item)` when it leaves. */
export class QueueItem {
  constructor(file, limits, { onShow, onRemove }) {
    Object.assign(this, { file, limits, onShow, onRemove, state: "waiting", detection: null, jobId: null });
    this.address = URL.createObjectURL(file);
    this.build();
    this.track.hidden = true; // until it runs
    this.buttons.append(this.button(T.action.dismiss, "close", () => this.onRemove(this), true));
    this.say(T.job.waiting);
  }

  build() {
    const { name, size, type } = this.file;
    const kind = ["image", "audio"].find((each) => type.startsWith(`${each}/`)) || "video";
    const still = { image: () => h("img", { src: this.address, alt: "" }), audio: () => icon("audio") }[kind];
    const preview = still
      ? still()
      : h("video", { src: `${this.address}#t=0.1`, muted: true, preload: "metadata", tabindex: "-1", "aria-hidden": "true" });
    preview.addEventListener("error", () => preview.replaceWith(icon(kind)));
    this.line = h("p", { class: "item__line" });
    this.bar = h("span", { class: "progress__fill" });
    this.progress = h("div", { class: "progress", role: "progressbar", "aria-label": T.job.progress(name), "aria-valuemin": 0, "aria-valuemax": 100 }, this.bar);
    this.steps = STEPS.map((key) => h("li", { "data-step": key, text: T.job.steps[key] }));
    this.track = h("div", { class: "item__track" }, this.progress, h("ol", { class: "steps", "aria-hidden": "true" }, this.steps));
    this.extra = h("div", { class: "item__extra" });
    this.buttons = h("div", { class: "item__buttons" });
    this.element = h(
      "li",
      { class: "item" },
      h("div", { class: "item__preview" }, preview),
      h("div", { class: "item__body" }, h("p", { class: "item__name" }, h("strong", { class: "filename", text: name }), h("span", { text: bytes(size) })), this.line),
      this.buttons,
      this.track,
      this.extra,
    );
  }

  /** Run from check to end; resolves when the file needs no more attention, whatever became of it. */
  async run() {
    this.abort = new AbortController();
    this.jobId = null;
    this.extra.replaceChildren();
    this.set("active", [this.button(T.action.cancel, "close", () => this.cancel())]);
    try {
      this.advance("upload", 0, T.job.checking);
      const fault = await checkFile(this.file, this.address, this.limits);
      if (fault) throw fault;
      this.throwIfCancelled();
      await this.send();
    } catch (error) {
      if (this.abort.signal.aborted || error.code === "cancelled") this.finishCancelled();
      else this.finishFailed(error);
    }
  }

  async send() {
    const { signal } = this.abort;
    const onProgress = (sent, total) =>
      sent < total
        ? this.advance("upload", sent / total, T.job.uploading(share(sent / total), bytes(sent), bytes(total)))
        : this.advance("upload", 1, T.job.received);
    const answer = await this.patiently(() => upload(this.file, { signal, onProgress }));
    this.jobId = answer.id;
    const isReport = "verdict" in answer;
    if (!isReport) {
      const looking = setInterval(() => this.lookForWorker(), LOOK_MS);
      const job = await followJob(answer.id, { signal, onUpdate: (update) => this.update(update) }).finally(() => clearInterval(looking));
      if (job.state === "failed") throw job.error;
      if (job.state === "cancelled") throw { code: "cancelled" };
    }
    this.detection = await getDetection(answer.id);
    this.finishDone();
  }

  /** Try until the server no longer says that there is too much to do, as often and as late as it asks for. */
  async patiently(attempt) {
    for (let left = PATIENCE; ; left -= 1) {
      try {
        return await attempt();
      } catch (error) {
        if (error.status !== 429 || !error.retryAfter || left === 0) throw error;
        this.advance("upload", 0, T.job.busy(error.retryAfter));
        await new Promise((wake) => {
          const timer = setTimeout(wake, error.retryAfter * 1000);
          this.abort.signal.addEventListener("abort", () => wake(clearTimeout(timer)), { once: true });
        });
        this.throwIfCancelled();
      }
    }
  }

  throwIfCancelled() {
    if (this.abort.signal.aborted) throw { code: "cancelled" };
  }

  update(job) {
    if (!step(job)) return;
    this.advance(step(job), job.state === "queued" ? 0 : job.fraction, describe(job));
  }

  async lookForWorker() {
    if (this.lastStep !== "queue" || (await hasWorker()) || this.lastStep !== "queue") return;
    if (this.line.textContent !== T.job.noWorker) this.say(T.job.noWorker);
  }

  async cancel() {
    this.say(T.job.cancelling);
    this.abort.abort();
    if (!this.jobId) return;
    try {
      await cancelJob(this.jobId);
    } catch (error) {
      if (error.status === 409) await this.takeResult(); // it had ended
      else if (error.status !== 404) this.extra.replaceChildren(problem(error));
    }
  }

  /** The result of an analysis that was quicker than its cancelling; one that failed stays cancelled. */
  async takeResult() {
    try {
      const detection = await getDetection(this.jobId);
      if (this.state !== "cancelled") return;
      this.detection = detection;
      this.finishDone();
    } catch (error) {
      if (error.status !== 404 && error.status !== 409) this.extra.replaceChildren(problem(error));
    }
  }

  finishDone() {
    const { outcome } = this.detection.overall ?? this.detection.verdict;
    this.set("done", [
      this.button(T.action.show, outcome, () => this.onShow(this, true)),
      this.button(T.action.dismiss, "close", () => this.onRemove(this), true),
    ]);
    this.line.replaceChildren(chip(outcome, T.verdict[outcome]));
    this.onShow(this, false);
  }

  finishFailed(error) {
    const retry = !LASTING.test(error.code) && this.button(T.action.retry, "retry", () => this.run());
    this.set("failed", [retry, this.button(T.action.dismiss, "close", () => this.onRemove(this), true)]);
    this.say(T.job.failed);
    this.extra.replaceChildren(problem(error));
  }

  finishCancelled() {
    const retry = this.button(T.action.retry, "retry", () => this.run());
    this.set("cancelled", [retry, this.button(T.action.dismiss, "close", () => this.onRemove(this), true)]);
    this.say(T.job.cancelled);
  }

  button(text, symbol, onclick, bare = false) {
    const label = T.action.of(text, this.file.name);
    const face = bare ? [icon(symbol)] : [icon(symbol), h("span", { text })];
    return h("button", { class: bare ? "button button--bare" : "button", type: "button", "aria-label": label, title: bare ? text : null, onclick }, face);
  }

  set(state, buttons) {
    const hadFocus = this.buttons.contains(document.activeElement);
    this.state = state;
    this.element.dataset.state = state;
    this.track.hidden = state !== "active";
    this.buttons.replaceChildren(...buttons.filter(Boolean));
    if (hadFocus) this.buttons.querySelector("button")?.focus();
  }

  advance(at, fraction, words) {
    const index = STEPS.indexOf(at);
    this.steps.forEach((node, i) => (node.dataset.at = i < index ? "done" : i === index ? "now" : "later"));
    this.bar.style.width = `${fraction * 100}%`;
    this.progress.setAttribute("aria-valuenow", String(Math.round(fraction * 100)));
    this.progress.setAttribute("aria-valuetext", words);
    this.progress.dataset.step = at;
    this.line.textContent = words;
    if (this.lastStep !== at) announce(T.job.announce(this.file.name, words));
    this.lastStep = at;
  }

  say(words) {
    this.line.textContent = words;
    announce(T.job.announce(this.file.name, words));
  }

  release() {
    URL.revokeObjectURL(this.address);
  }
}
