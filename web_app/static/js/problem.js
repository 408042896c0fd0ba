// A failure as people need it: what happened, what to do, and the code to quote.

import { h, icon } from "./dom.js";
import { T } from "./strings.js";

/** An alert for an ApiError or any object with detail (or message), remedy and code. */
export function problem(error) {
  return h(
    "div",
    { class: "problem", role: "alert" },
    icon("failed"),
    h(
      "div",
      {},
      h("p", { class: "problem__detail", text: error.detail || error.message }),
      error.remedy && h("p", { text: T.error.remedies[error.code] ?? error.remedy }), // the server's may speak of headers
      error.code && h("p", { class: "problem__code" }, h("code", { text: T.error.code(error.code) })),
    ),
  );
}
