// The question before something is deleted.

import { deleteDetection } from "./api.js";
import { h } from "./dom.js";
import { problem } from "./problem.js";
import { T } from "./strings.js";

/** Ask, delete one analysis, and tell; resolves to true when it is gone. The browser gives the focus back. */
export const confirmDelete = (id, name) =>
  askFirst({ title: T.history.confirmTitle, text: T.history.confirm(name), yes: T.action.remove, run: () => deleteDetection(id) });

/** The same for everything; `run` deletes it. */
export const confirmClear = (run) => askFirst({ title: T.history.clearTitle, text: T.history.clearText, yes: T.history.clearYes, run });

/** Ask in a dialog, with `more` below the text, and `run` on yes; resolves to true when that is done. */
export function askFirst({ title, text, yes, run, more = null }) {
  return new Promise((resolve) => {
    const failure = h("div", {});
    const keep = h("button", { class: "button", type: "button", text: T.action.keep, onclick: () => dialog.close() });
    const remove = h("button", { class: "button button--danger", type: "button", text: yes, onclick: () => carryOut() });
    const dialog = h(
      "dialog",
      { class: "dialog", "aria-labelledby": "confirm-title" },
      h("h2", { id: "confirm-title", text: title }),
      h("p", { text }),
      more,
      failure,
      h("div", { class: "row row--end" }, keep, remove),
    );
    let gone = false;

    async function carryOut() {
      remove.disabled = true;
      try {
        await run();
        gone = true;
        dialog.close();
      } catch (error) {
        remove.disabled = false;
        failure.replaceChildren(problem(error));
      }
    }

    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(gone);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}
