// A recording's player, with the same handles as a picture's or a video's stage.

import { mediaUrl } from "./api.js";
import { h, icon } from "./dom.js";
import { handedOut } from "./stage.js";
import { T } from "./strings.js";

/** Returns {element, select(), seek(seconds), onTime(listener), showMap()}. */
export function soundPlayer(detection) {
  const address = mediaUrl(detection.id);
  const player = h("audio", { src: address, controls: true, preload: "metadata", "aria-label": T.media.player(detection.name) });
  const element = h("div", { class: "sound" }, player);
  const listeners = [];
  const tell = (seconds) => listeners.forEach((listener) => listener(seconds));
  const tick = () => {
    tell(player.currentTime);
    if (!player.paused && player.isConnected) requestAnimationFrame(tick);
  };
  for (const name of ["play", "seeked", "timeupdate"]) player.addEventListener(name, tick);
  player.addEventListener("error", async () => {
    const { there, damaged, waited } = await handedOut(detection.id).catch(() => ({}));
    if (there && waited) {
      player.src = address;
      return;
    }
    const link = there && h("a", { class: "button", href: address }, icon("download"), h("span", { text: T.media.download.audio }));
    element.replaceChildren(h("p", { class: "fine", text: there ? T.media.soundUnplayable : damaged ? T.media.damaged : T.media.later }), ...[link].filter(Boolean));
  });
  return {
    element,
    select: () => {},
    showMap: () => {},
    seek: (seconds) => {
      if (player.readyState > 0) player.currentTime = seconds;
      tell(seconds);
    },
    onTime: (listener) => listeners.push(listener),
  };
}
