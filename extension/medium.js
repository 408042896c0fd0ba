// The bytes behind what was clicked: from the extension where it may ask the host, else from inside the page.

import { Failure, browser, mayAsk } from "./server.js";

const MOST_FROM_PAGE = 40_000_000; // bytes; more does not fit into a message between page and extension
const ENDINGS = { "image/jpeg": "jpg", "image/png": "png", "image/webp": "webp", "video/mp4": "mp4", "video/webm": "webm", "audio/mpeg": "mp3" };

/** The medium at `src`, as it is in frame `frame` of tab `tab`. Throws a Failure that says why it cannot be had. */
export async function readMedium({ src, tab, frame }) {
  const scheme = src.split(":")[0];
  if (!src) throw new Failure("This has no address, so there are no bytes to send.");
  if (scheme === "data") return (await fetch(src)).blob();
  if (scheme === "blob") return fromPage(src, tab, frame, null);
  if (scheme !== "http" && scheme !== "https")
    throw new Failure(`Files at ${scheme}: addresses cannot be read by an extension. Save the file and upload it on Telltale's page.`);
  if (await mayAsk(src)) {
    const answer = await fetch(src, { credentials: "include" }).catch(() => null);
    if (answer?.ok) return answer.blob();
  }
  return fromPage(src, tab, frame, src);
}

async function fromPage(src, tab, frame, allow) {
  const host = allow && new URL(allow).host;
  const refused = new Failure(
    allow
      ? `${host} does not give this file to other pages. If the extension may ask ${host} itself, it can be sent.`
      : "The page keeps this in pieces or has thrown it away, so there is no file to send. Save it another way and upload it on Telltale's page.",
    { allow },
  );
  let found;
  try {
    const target = { tabId: tab, frameIds: [frame] };
    [{ result: found }] = await browser.scripting.executeScript({ target, func: readHere, args: [src, MOST_FROM_PAGE] });
  } catch {
    throw refused; // a frame of another site, a page of the browser, or a tab that was closed
  }
  if (found?.size > MOST_FROM_PAGE)
    throw new Failure("The file is too large to be read out of the page. Save it and upload it on Telltale's page.");
  if (found?.status) throw new Failure(`${host} answered ${found.status} instead of the file.`, { allow: (await mayAsk(src)) ? null : allow });
  if (!found?.data) throw refused;
  return (await fetch(found.data)).blob();
}

/** Runs inside the page, and so knows nothing of this module. */
async function readHere(src, most) {
  try {
    const answer = await fetch(src);
    if (!answer.ok) return { status: answer.status };
    const blob = await answer.blob();
    if (blob.size > most) return { size: blob.size };
    return await new Promise((resolve, reject) => {
      const reader = new FileReader();
      reader.onload = () => resolve({ data: reader.result });
      reader.onerror = reject;
      reader.readAsDataURL(blob);
    });
  } catch {
    return null;
  }
}

/** A name for the upload: the last part of the address, with the ending of what arrived. */
export function nameOf(src, type) {
  let path = /^https?:/.test(src) ? new URL(src).pathname.split("/").pop() : "";
  try {
    path = decodeURIComponent(path);
  } catch {
    // a bare % is part of the name
  }
  if (/\.\w{2,5}$/.test(path)) return path;
  return `${path || "medium"}.${ENDINGS[type] ?? type.split("/")[1] ?? "bin"}`;
}
