// The entry in the context menu. It hands what was clicked to a panel of its own window, where pages cannot imitate it.

import { browser } from "./server.js";

const PANEL = { type: "popup", width: 440, height: 640 };

browser.runtime.onInstalled.addListener(() => {
  browser.contextMenus.create({ id: "check", title: "Check with Telltale", contexts: ["image", "video", "audio"] });
});

/** Open the panel for a medium: `src` its address, `tab` and `frame` where it was clicked. */
async function check(src, tab, frame) {
  const id = crypto.randomUUID();
  await browser.storage.session.set({ [id]: { src, tab, frame } });
  await browser.windows.create({ ...PANEL, url: browser.runtime.getURL(`panel.html#${id}`) });
}

browser.contextMenus.onClicked.addListener((info, tab) => check(info.srcUrl ?? "", tab.id, info.frameId ?? 0));
globalThis.check = check; // tests have no context menu
