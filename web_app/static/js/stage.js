// The picture or the player with the face boxes on top; the boxes of a video follow its time.

import { h, icon, s } from "./dom.js";
import { faceLabel, faceTag, faceTone } from "./faces.js";
import { filmstrip } from "./filmstrip.js";
import { getFrames, mediaStatus, mediaUrl } from "./api.js";
import { T } from "./strings.js";

const GLIDE_S = 2; // between frames closer than this a box moves in a straight line
const HOLD_S = 0.75; // further apart, a box is only shown this close to its frame
const MAP_S = 0.06; // a heatmap belongs to one frame of a video
const LABEL_HEIGHT = 22;
const COPY_MS = 2000; // between two looks whether the server has made the copy that it hands out
const COPY_LOOKS = 30;

/**
 * Where a face is at a time of the video.
 *
 * Returns {box, exact} in pixels of the medium, or null while the face is not in sight.
 */
export function boxAt(frames, time) {
  const after = frames.findIndex((frame) => frame.time_s > time);
  const previous = frames[after < 0 ? frames.length - 1 : after - 1];
  const next = after < 0 ? undefined : frames[after];
  if (previous && next && next.time_s - previous.time_s <= GLIDE_S) {
    const ratio = (time - previous.time_s) / (next.time_s - previous.time_s);
    return { box: previous.box.map((v, i) => v + (next.box[i] - v) * ratio), exact: ratio < 0.02 || ratio > 0.98 };
  }
  const near = [previous, next]
    .filter((frame) => frame && Math.abs(frame.time_s - time) <= HOLD_S)
    .sort((a, b) => Math.abs(a.time_s - time) - Math.abs(b.time_s - time))[0];
  return near ? { box: near.box, exact: Math.abs(near.time_s - time) < 0.04 } : null;
}

function marker(face, onSelect) {
  const pick = () => onSelect(face.id);
  const rect = s("rect", { class: "box__rect", rx: 6 });
  const halo = s("rect", { class: "box__halo", rx: 6 });
  const tag = s("rect", { class: "box__tag", height: LABEL_HEIGHT, rx: 5 });
  const text = s("text", { class: "box__text" });
  const node = s(
    "g",
    {
      class: "box",
      role: "button",
      tabindex: 0,
      "data-tone": faceTone(face),
      "data-face": face.id,
      "aria-label": faceLabel(face),
      onclick: pick,
      onkeydown: (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        pick();
      },
    },
    halo,
    rect,
    tag,
    text,
  );
  return { face, node, rect, halo, tag, text };
}

/** The heatmap of one expert: its grey levels let a colour shine through, over the square that the networks saw. */
function heat() {
  const mask = s("mask", { id: "heat-mask", maskUnits: "userSpaceOnUse" });
  const picture = s("image", { preserveAspectRatio: "none" });
  const colour = s("rect", { class: "heat__colour", mask: "url(#heat-mask)" });
  mask.append(picture);
  const node = s("g", { class: "heat", "aria-hidden": "true" }, s("defs", {}, mask), colour);
  let shown = null;
  return {
    node,
    show: (map) => {
      shown = map;
      if (map) {
        picture.setAttribute("href", map.url);
        colour.style.opacity = map.opacity;
      }
    },
    layout: (scale, time) => {
      const visible = shown && (time === null || Math.abs(time - shown.time) < MAP_S);
      node.toggleAttribute("hidden", !visible);
      if (!visible) return;
      const [x0, y0, x1, y1] = shown.square.map((v) => v * scale);
      const size = { x: x0, y: y0, width: x1 - x0, height: y1 - y0 };
      for (const part of [mask, picture, colour]) Object.entries(size).forEach(([key, value]) => part.setAttribute(key, value));
    },
  };
}

function put(mark, found, { scale, width, height }) {
  mark.node.toggleAttribute("hidden", !found);
  if (!found) return;
  const clamp = (value, most) => Math.min(Math.max(value * scale, 2), most - 2);
  const [x0, y0, x1, y1] = found.box;
  const left = clamp(x0, width);
  const top = clamp(y0, height);
  const size = { x: left, y: top, width: Math.max(clamp(x1, width) - left, 1), height: Math.max(clamp(y1, height) - top, 1) };
  for (const node of [mark.rect, mark.halo]) Object.entries(size).forEach(([key, value]) => node.setAttribute(key, value));
  mark.rect.classList.toggle("box__rect--between", !found.exact);
  const long = faceTag(mark.face);
  const label = long.length * 7.6 + 12 <= Math.max(size.width * 1.3, 64) ? long : String(mark.face.id + 1);
  const bottom = top + size.height;
  const [tagTop, tagLeft] =
    top >= LABEL_HEIGHT + 4
      ? [top - LABEL_HEIGHT - 3, left]
      : bottom + LABEL_HEIGHT + 4 <= height
        ? [bottom + 3, left]
        : [top + 5, left + 5];
  mark.text.textContent = label;
  mark.text.setAttribute("x", tagLeft + 7);
  mark.text.setAttribute("y", tagTop + 15.5);
  mark.tag.setAttribute("x", tagLeft);
  mark.tag.setAttribute("y", tagTop);
  mark.tag.setAttribute("width", label.length * 7.6 + 14);
}

/** Wait while the server makes the copy that it hands out; whether there is one. */
export async function handedOut(id) {
  let status = await mediaStatus(id);
  const waited = status === 503;
  for (let look = 0; status === 503 && look < COPY_LOOKS; look += 1) {
    await new Promise((wake) => setTimeout(wake, COPY_MS));
    status = await mediaStatus(id);
  }
  return { there: status < 400, damaged: status === 404, waited };
}

/** What is said below the frames of a video that cannot be played. */
function framesNote(detection, { there, damaged }) {
  const missing = damaged ? T.media.framesOfDamaged : T.media.framesLater;
  return note(there ? T.media.framesOf(detection.media.format.toUpperCase()) : missing, detection, there);
}

/** A line below a medium that a browser cannot show, with a way to have it where it is `there`. */
function note(text, detection, there) {
  const link = there && h("a", { class: "button", href: mediaUrl(detection.id) }, icon("download"), h("span", { text: T.media.download[detection.media.kind] }));
  return h("div", { class: "stage__note" }, h("p", { class: "fine", text }), link);
}

/**
 * The medium with its boxes.
 *
 * Returns {element, select(id), seek(seconds), onTime(listener), showMap(map)}; a map is {url, square, time, opacity}
 * with the square in pixels of the medium, or null for none.
 */
export function stage(detection, onSelect) {
  const { media, faces } = detection;
  const isVideo = media.kind === "video";
  const address = mediaUrl(detection.id);
  const medium = isVideo
    ? h("video", { src: address, controls: true, preload: "auto", playsinline: true, muted: true, "aria-label": T.media.player(detection.name) })
    : h("img", { src: address, alt: T.media.alt(detection.name) });
  const marks = faces.filter((face) => face.frames.length).map((face) => marker(face, onSelect));
  const map = heat();
  const overlay = s("svg", { class: "stage__boxes", role: "group", "aria-label": T.face.boxes }, map.node, marks.map((mark) => mark.node));
  const reason = h("span");
  const failure = h("p", { class: "stage__failure", hidden: true }, icon(media.kind), reason);
  const frame = h("div", { class: "stage__frame" }, medium, overlay, failure);
  frame.style.aspectRatio = `${media.width} / ${media.height}`;
  frame.style.maxWidth = `calc(66vh * ${media.width / media.height})`;
  const element = h("div", { class: "stage" }, frame);
  const listeners = [];
  let frames = null; // in place of a video that cannot be played
  const now = () => (frames ? frames.time() : medium.currentTime);

  const layout = () => {
    const width = frame.clientWidth;
    map.layout(width / media.width, isVideo ? now() : null);
    const geometry = { scale: width / media.width, width, height: frame.clientHeight };
    for (const mark of marks) {
      const found = isVideo ? boxAt(mark.face.frames, now()) : { box: mark.face.frames[0].box, exact: true };
      put(mark, found, geometry);
    }
  };
  const tick = () => {
    layout();
    listeners.forEach((listener) => listener(now()));
    if (isVideo && !frames && !medium.paused && medium.isConnected) requestAnimationFrame(tick);
  };
  if (isVideo) for (const name of ["play", "seeked", "timeupdate", "loadedmetadata"]) medium.addEventListener(name, tick);
  const fail = (text) => {
    reason.textContent = text;
    failure.hidden = false;
    medium.hidden = true;
    overlay.toggleAttribute("hidden", true);
  };
  let again = false;
  const recover = async () => {
    const copy = await handedOut(detection.id);
    if (copy.there && (copy.waited || !again)) {
      again = true; // the copy may have been made between the refusal and this look
      medium.src = address;
      return;
    }
    const found = await getFrames(detection.id).catch(() => null);
    if (!found) {
      fail(isVideo ? T.media.unplayable : copy.damaged ? T.media.damaged : T.media.later);
      return;
    }
    if (!isVideo) {
      medium.src = `data:image/jpeg;base64,${found.frames[0].jpeg}`;
      element.append(note(T.media.small(media.format.toUpperCase()), detection, copy.there));
      return;
    }
    frames = filmstrip(found.frames, T.media.player(detection.name), tick);
    medium.replaceWith(frames.picture);
    element.append(frames.strip, framesNote(detection, copy));
    frames.seek(found.frames[0].time_s);
  };
  medium.addEventListener("error", () => recover().catch(() => fail(isVideo ? T.media.unplayable : T.media.damaged)));
  new ResizeObserver(layout).observe(frame);

  return {
    element,
    select: (id) => marks.forEach((mark) => mark.node.setAttribute("aria-pressed", String(mark.face.id === id))),
    seek: (seconds) => {
      if (frames) frames.seek(seconds);
      else if (medium.readyState > 0) medium.currentTime = seconds;
      listeners.forEach((listener) => listener(seconds));
    },
    onTime: (listener) => listeners.push(listener),
    showMap: (chosen) => {
      map.show(chosen);
      if (chosen && isVideo && Math.abs(now() - chosen.time) >= MAP_S) {
        if (frames) frames.seek(chosen.time);
        else {
          medium.pause();
          medium.currentTime = chosen.time;
        }
      }
      layout();
    },
  };
}
