// The question before something is deleted.

import { deleteDetection } from "./api.js";
import { h } from "./dom.js";
import { problem } from "./problem.js";
import { T } from "./strings.js";

/** Ask, delete, and tell; resolves to true when the analysis is gone. The browser gives the focus back. */
export function confirmDelete(id, name) {
  return new Promise((resolve) => {
    const failure = h("div", {});
    const keep = h("button", { class: "button", type: "button", text: T.action.keep, onclick: () => dialog.close() });
    const remove = h("button", { class: "button button--danger", type: "button", text: T.action.remove, onclick: () => run() });
    const dialog = h(
      "dialog",
      { class: "dialog", "aria-labelledby": "confirm-title" },
      h("h2", { id: "confirm-title", text: T.history.confirmTitle }),
      h("p", { text: T.history.confirm(name) }),
      failure,
      h("div", { class: "row row--end" }, keep, remove),
    );
    let gone = false;

    async function run() {
      remove.disabled = true;
      try {
        await deleteDetection(id);
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
