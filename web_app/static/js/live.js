// The live camera: about once a second a picture goes to the API with keep=0, and the mean of the last scores is shown.
// The microphone beside it does so with a few seconds of sound at a time, and may be used alone.

import { url } from "./api.js";
import { percent } from "./dom.js";
import { T } from "./strings.js";

const EVERY_MS = 1000;
const PAUSE_AFTER_ERROR_MS = 4000;
const LONGEST_SIDE = 640;
const WINDOW = 8;
const QUALITY = 0.92;
const HEARD_MS = 4000;
const SVG = "http://www.w3.org/2000/svg";

const at = (id) => document.getElementById(id);
const camera = at("camera");
const canvas = document.createElement("canvas");
let stream = null;
let timer = 0;
let scores = [];
let sound = null;
let heard = [];

/** Mean of probabilities on the scale of their logits, so that one certain picture weighs what it should. */
export function meanScore(probabilities) {
  const logits = probabilities.map((p) => Math.min(Math.max(p, 1e-4), 1 - 1e-4)).map((p) => Math.log(p / (1 - p)));
  return 1 / (1 + Math.exp(-logits.reduce((sum, logit) => sum + logit, 0) / logits.length));
}

function say(text) {
  at("state").textContent = text;
}

async function start() {
  if (!navigator.mediaDevices?.getUserMedia) return say(T.live.unsupported);
  say(T.live.asking);
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user", width: { ideal: 1280 } } });
  } catch (error) {
    return say(error.name === "NotFoundError" ? T.live.missing : T.live.refused(error.message || error.name));
  }
  camera.srcObject = stream;
  camera.parentElement.toggleAttribute("data-on", true);
  await camera.play();
  scores = [];
  [at("start").disabled, at("stop").disabled] = [true, false];
  say(T.live.running);
  return look();
}

function stop() {
  clearTimeout(timer);
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  camera.srcObject = null;
  camera.parentElement.toggleAttribute("data-on", false);
  at("boxes").replaceChildren();
  [at("start").disabled, at("stop").disabled] = [false, true];
  say(T.live.off);
}

async function look() {
  const [own, begun] = [stream, performance.now()];
  let pause = EVERY_MS;
  if (!document.hidden && camera.videoWidth) {
    try {
      const report = await ask(await takePicture(), "image", "camera.jpg");
      if (stream !== own) return; // stopped meanwhile
      show(report);
      say(T.live.running);
    } catch (error) {
      if (stream !== own) return;
      pause = error.retryAfterMs || PAUSE_AFTER_ERROR_MS;
      say(T.live.failed(error.message));
    }
  }
  if (stream && stream === own) timer = setTimeout(look, Math.max(0, pause - (performance.now() - begun)));
}

function takePicture() {
  const scale = Math.min(1, LONGEST_SIDE / Math.max(camera.videoWidth, camera.videoHeight));
  canvas.width = Math.round(camera.videoWidth * scale);
  canvas.height = Math.round(camera.videoHeight * scale);
  canvas.getContext("2d").drawImage(camera, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob(done, "image/jpeg", QUALITY));
}

async function ask(blob, kind, name) {
  const body = new FormData();
  body.append("file", blob, name);
  const response = await fetch(url(`api/detect/${kind}?keep=0`), { method: "POST", body });
  const answer = await response.json();
  if (response.ok) return answer;
  const seconds = Number(response.headers.get("Retry-After"));
  throw Object.assign(new Error(answer.detail || answer.title), { retryAfterMs: seconds * 1000 });
}

function show(report) {
  const p = report.fake_probability;
  at("now").textContent = p === null ? T.live.none : T.live.now(percent(p));
  if (p !== null) {
    scores = [...scores, p].slice(-WINDOW);
    const mean = meanScore(scores);
    at("score").textContent = T.live.mean(percent(mean), scores.length);
    at("meter").value = mean;
  }
  draw(report);
}

function draw(report) {
  const boxes = at("boxes");
  boxes.setAttribute("viewBox", `0 0 ${report.media.width} ${report.media.height}`);
  boxes.replaceChildren(...report.faces.flatMap((face) => face.frames).map(({ box: [x0, y0, x1, y1] }) => {
    const rect = document.createElementNS(SVG, "rect");
    for (const [name, value] of Object.entries({ x: x0, y: y0, width: x1 - x0, height: y1 - y0 })) {
      rect.setAttribute(name, value);
    }
    return rect;
  }));
}

const tell = (text) => (at("sound-state").textContent = text);

async function listen() {
  if (!navigator.mediaDevices?.getUserMedia || !window.MediaRecorder) return tell(T.live.soundUnsupported);
  tell(T.live.soundAsking);
  let own;
  try {
    own = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false } });
  } catch (error) {
    return tell(error.name === "NotFoundError" ? T.live.soundMissing : T.live.soundRefused(error.message || error.name));
  }
  deafen(); // where the button was pressed twice
  [sound, heard] = [own, []];
  [at("listen").disabled, at("deafen").disabled] = [true, false];
  tell(T.live.soundRunning);
  let answer = Promise.resolve();
  while (sound === own && own.active) {
    const blob = await record(own);
    await answer; // one at a time: what is said meanwhile is not judged
    if (sound === own && own.active && !document.hidden) answer = judge(blob, own);
  }
  if (sound === own) deafen();
}

function record(from) {
  const recorder = new MediaRecorder(from);
  return new Promise((done) => {
    recorder.addEventListener("dataavailable", ({ data }) => done(data));
    recorder.start();
    setTimeout(() => recorder.state === "recording" && recorder.stop(), HEARD_MS);
  });
}

async function judge(blob, own) {
  try {
    const report = await ask(blob, "audio", "microphone");
    if (sound !== own) return; // stopped meanwhile
    hear(report);
    tell(T.live.soundRunning);
  } catch (error) {
    if (sound !== own) return;
    tell(T.live.failed(error.message));
    await new Promise((wake) => setTimeout(wake, error.retryAfterMs || PAUSE_AFTER_ERROR_MS));
  }
}

function hear({ speech }) {
  const { outcome, probability: p } = speech.verdict;
  at("sound-now").textContent = p === null ? T.live.nobody : T.live.soundNow(T.verdict.short[outcome], percent(p));
  if (p === null) return;
  heard = [...heard, p].slice(-WINDOW);
  const mean = meanScore(heard);
  at("sound-score").textContent = T.live.mean(percent(mean), heard.length);
  at("sound-meter").value = mean;
}

function deafen() {
  sound?.getTracks().forEach((track) => track.stop());
  sound = null;
  [at("listen").disabled, at("deafen").disabled] = [false, true];
  tell(T.live.soundOff);
}

at("start").addEventListener("click", start);
at("stop").addEventListener("click", stop);
at("listen").addEventListener("click", listen);
at("deafen").addEventListener("click", deafen);
addEventListener("pagehide", () => [stream && stop(), sound && deafen()]);
say(T.live.off);
tell(T.live.soundOff);
