// The start page: files come in by drop, dialog or paste, wait their turn, and the result is shown below.

import { csvUrl } from "./api.js";
import { readLimits } from "./files.js";
import { QueueItem } from "./queue.js";
import { showResult } from "./result.js";
import { T } from "./strings.js";

const AT_ONCE = 2; // files in flight; more would only compete for the same line and the same worker

const section = document.getElementById("upload");
const drop = document.getElementById("drop");
const input = document.getElementById("file");
const queue = document.getElementById("queue");
const list = document.getElementById("queue-list");
const result = document.getElementById("result");
const csv = document.getElementById("queue-csv");
const limits = readLimits(section);
const items = [];
let shown = null;
let reader = false; // the reader has picked a result; later ones no longer replace it

/** With several results, one table of them all. */
function offerTable() {
  const ids = items.filter((item) => item.detection).map((item) => item.detection.id);
  csv.hidden = ids.length < 2;
  csv.href = csvUrl({ ids: ids.join(",") });
}

function show(item, asked) {
  offerTable();
  if (!asked && (reader || (shown && shown !== item))) return;
  reader ||= asked;
  shown = item;
  items.forEach((other) => other.element.toggleAttribute("data-shown", other === item));
  showResult(result, item.detection, { focus: asked, onDeleted: () => remove(item) });
}

function remove(item) {
  item.release();
  item.element.remove();
  items.splice(items.indexOf(item), 1);
  offerTable();
  if (shown === item) {
    shown = null;
    result.replaceChildren();
  }
  queue.hidden = items.length === 0;
  section.toggleAttribute("data-compact", items.length > 0);
  if (document.activeElement === document.body) document.getElementById("choose").focus();
}

async function next() {
  const active = items.filter((item) => item.state === "active").length;
  const item = items.find((candidate) => candidate.state === "waiting");
  if (!item || active >= AT_ONCE) return;
  const run = item.run(); // becomes active before the first wait, so the next call takes another one
  next();
  await run;
  next();
}

function add(files) {
  for (const file of files) {
    const item = new QueueItem(file, limits, { onShow: show, onRemove: remove });
    items.push(item);
    list.append(item.element);
  }
  if (!items.length) return;
  queue.hidden = false;
  section.toggleAttribute("data-compact", true);
  next();
}

// Each button opens the dialog of an input that is not seen: the files, or on a phone the camera.
for (const [button, source] of [["choose", input], ["take-photo", "camera-photo"], ["take-video", "camera-video"]]) {
  const field = typeof source === "string" ? document.getElementById(source) : source;
  document.getElementById(button).addEventListener("click", () => field.click());
  field.addEventListener("change", () => {
    add([...field.files]);
    field.value = "";
  });
}

let depth = 0; // dragenter and dragleave also come from children
document.addEventListener("dragenter", (event) => {
  if (!event.dataTransfer.types.includes("Files")) return;
  depth += 1;
  drop.toggleAttribute("data-over", true);
});
document.addEventListener("dragleave", () => {
  depth = Math.max(0, depth - 1);
  if (depth === 0) drop.toggleAttribute("data-over", false);
});
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  depth = 0;
  drop.toggleAttribute("data-over", false);
  add([...event.dataTransfer.files]);
});
document.addEventListener("paste", (event) => {
  const files = [...event.clipboardData.files];
  if (!files.length) return;
  event.preventDefault();
  add(files);
});
window.addEventListener("beforeunload", (event) => {
  if (!items.some((item) => item.state === "waiting" || (item.state === "active" && !item.jobId))) return;
  event.preventDefault();
  event.returnValue = T.job.leave;
});
