// The options: the server's address and key, kept in this browser, and tried when they are saved.

import { Failure, ask, browser, hostPattern, settings } from "./server.js";

const form = document.querySelector("form");
const status = document.getElementById("status");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    const url = new URL(form.server.value.trim());
    if (!["http:", "https:"].includes(url.protocol)) throw new Failure("The address begins with http:// or https://.");
    const chosen = { server: url.origin + url.pathname.replace(/\/+$/, ""), key: form.key.value.trim() };
    const allowed = await browser.permissions.request({ origins: [hostPattern(chosen.server)] }); // first: it needs the click
    if (!allowed) throw new Failure(`Without that permission ${url.host} cannot be asked. Nothing was saved.`);
    await browser.storage.local.set(chosen);
    form.server.value = chosen.server;
    await ask("/api/history?per_page=1", chosen);
    status.textContent = "Saved. The server answers.";
  } catch (error) {
    status.textContent = error instanceof Failure ? error.message : "This is no address of a server.";
  }
});

const { server, key } = await settings();
form.server.value = server;
form.key.value = key;
