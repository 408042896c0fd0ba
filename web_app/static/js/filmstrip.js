// The analysed frames of a video that the browser cannot play: one of them large, all of them in a strip.

import { clock, h } from "./dom.js";
import { T } from "./strings.js";

const STEPS = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity };

/**
 * The frames, [{time_s, jpeg}], as a picture and a strip to choose from.
 *
 * Returns {picture, strip, time(), seek(seconds)}; `onChange()` is called whenever another frame is shown.
 */
export function filmstrip(frames, label, onChange) {
  const sources = frames.map((frame) => `data:image/jpeg;base64,${frame.jpeg}`);
  const picture = h("img", { alt: label });
  let shown = 0;

  const show = (index) => {
    shown = index;
    picture.src = sources[index];
    buttons.forEach((button, at) => {
      button.setAttribute("aria-pressed", String(at === index));
      button.tabIndex = at === index ? 0 : -1;
    });
    const chosen = buttons[index];
    strip.scrollTo({ left: chosen.offsetLeft - (strip.clientWidth - chosen.offsetWidth) / 2 });
    onChange();
  };
  const step = (event) => {
    if (!(event.key in STEPS)) return;
    event.preventDefault();
    show(Math.min(Math.max(shown + STEPS[event.key], 0), frames.length - 1));
    buttons[shown].focus({ preventScroll: true });
  };
  const buttons = frames.map((frame, index) =>
    h(
      "button",
      { class: "strip__frame", type: "button", "aria-label": T.media.frame(clock(frame.time_s)), onclick: () => show(index) },
      h("img", { src: sources[index], alt: "" }),
      h("span", { text: clock(frame.time_s) }),
    ),
  );
  const strip = h("div", { class: "strip", role: "group", "aria-label": T.media.strip, onkeydown: step }, buttons);
  const distance = (index, seconds) => Math.abs(frames[index].time_s - seconds);
  return {
    picture,
    strip,
    time: () => frames[shown].time_s,
    seek: (seconds) => show(frames.reduce((best, _, index) => (distance(index, seconds) < distance(best, seconds) ? index : best), 0)),
  };
}
