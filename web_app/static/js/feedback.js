// The reader's own knowledge: correct or incorrect, and the truth itself where the verdict was open.

import { announce, h, icon } from "./dom.js";
import { sendFeedback } from "./api.js";
import { problem } from "./problem.js";
import { T } from "./strings.js";

const LONGEST_NOTE = 1000;
const OPPOSITE = { fake: "real", real: "fake" };

// What each button says and sends. An open verdict has no right or wrong: only the truth is asked for.
function choices(outcome) {
  if (OPPOSITE[outcome]) {
    return [
      { text: T.feedback.correct, icon: "check", send: { feedback: "correct", actual: outcome } },
      { text: T.feedback.incorrect, icon: "close", send: { feedback: "incorrect", actual: OPPOSITE[outcome] } },
    ];
  }
  return [
    { text: T.feedback.isReal, icon: "real", send: { feedback: "incorrect", actual: "real" } },
    { text: T.feedback.isFake, icon: "fake", send: { feedback: "incorrect", actual: "fake" } },
  ];
}

/** The feedback card; once answered it shows the thanks, also after a reload. */
export function feedback(detection) {
  const { outcome } = detection.verdict;
  const open = !OPPOSITE[outcome];
  const title = h("h3", { id: "feedback-title", class: "card__title", tabindex: "-1", text: open ? T.feedback.askTitle : T.feedback.title });
  const body = h("div", { class: "feedback__body" });
  const show = (...parts) => body.replaceChildren(title, ...parts);

  function thank(given) {
    const words = open ? T.feedback.given[given.actual] : T.feedback.given[given.feedback];
    const sentence = h("p", {}, h("strong", { text: T.feedback.thanks }), " ", words);
    const change = () => {
      ask();
      title.focus();
    };
    show(
      h("div", { class: "feedback__thanks" }, icon("check"), sentence),
      h("div", { class: "row" }, h("button", { class: "button", type: "button", text: T.feedback.change, onclick: change })),
    );
  }

  function ask() {
    const note = h("textarea", { id: "feedback-note", rows: 2, maxlength: LONGEST_NOTE });
    const failure = h("div", {});
    const send = async (answer) => {
      const text = note.value.trim();
      buttons.forEach((button) => (button.disabled = true));
      announce(T.feedback.sending);
      try {
        await sendFeedback({ id: detection.id, ...answer, ...(text ? { note: text } : {}) });
        thank(answer);
        title.focus();
        announce(T.feedback.thanks);
      } catch (error) {
        buttons.forEach((button) => (button.disabled = false));
        failure.replaceChildren(problem(error));
      }
    };
    const buttons = choices(outcome).map((choice) =>
      h("button", { class: "button", type: "button", onclick: () => send(choice.send) }, icon(choice.icon), h("span", { text: choice.text })),
    );
    show(
      h("p", { class: "fine", text: T.feedback.lede }),
      h("label", { class: "field", for: "feedback-note" }, h("span", { text: T.feedback.noteLabel }), note),
      h("div", { class: "row" }, buttons),
      failure,
    );
  }

  if (detection.feedback) thank(detection.feedback);
  else ask();
  return h("section", { class: "card feedback", "aria-labelledby": "feedback-title" }, body);
}
