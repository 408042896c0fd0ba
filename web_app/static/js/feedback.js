// The reader's own knowledge: correct or incorrect, and the truth itself where the verdict was open.

import { announce, h, icon } from "./dom.js";
import { sendFeedback, undoFeedback } from "./api.js";
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

// What will become of an answer, at once, and after a training what has.
function outlook(given) {
  const says = T.feedback.outlook[given.outlook];
  const of = { waits_for_users: given.missing_users, tried: given.tried_version, learned: given.learned_version }[given.outlook];
  return of === undefined ? says : says(of);
}

// With several people in the medium, what is true of each may be said too.
function faceChoices(faces) {
  if (faces.length < 2) return { element: null, labels: () => ({}) };
  const selects = faces.map((face) =>
    h("select", { name: `face-${face.id}` }, Object.entries(T.feedback.faceLabels).map(([value, text]) => h("option", { value, text }))),
  );
  const rows = faces.map((face, index) => h("label", { class: "field" }, h("span", { text: T.face.name(face.id + 1) }), selects[index]));
  const element = h("details", { class: "feedback__faces" }, h("summary", { text: T.feedback.facesTitle }), h("div", { class: "feedback__grid" }, rows));
  const labels = () => Object.fromEntries(selects.map((select, index) => [faces[index].id, select.value]).filter(([, value]) => value !== "unsaid"));
  return { element, labels };
}

/** The feedback card, of a video one more on its `voice`; once answered it shows the thanks, also after a reload. */
export function feedback(detection, voice = false) {
  const { outcome } = voice ? detection.speech.verdict : detection.verdict;
  const part = voice ? { part: "voice" } : {};
  const titleId = voice ? "voice-feedback-title" : "feedback-title";
  const noteId = voice ? "voice-feedback-note" : "feedback-note";
  const open = !OPPOSITE[outcome];
  const titles = voice ? T.voice : T.feedback;
  const title = h("h3", { id: titleId, class: "card__title", tabindex: "-1", text: open ? titles.askTitle : titles.feedbackTitle || titles.title });
  const body = h("div", { class: "feedback__body" });
  const failure = h("div", {});
  const show = (...parts) => {
    failure.replaceChildren();
    body.replaceChildren(title, ...parts.filter(Boolean), failure);
  };

  function thank(given) {
    const words = open ? T.feedback.given[given.actual] : T.feedback.given[given.feedback];
    const again = () => {
      ask(given.note);
      title.focus();
    };
    const undo = async () => {
      try {
        await undoFeedback(detection.id, part);
        ask();
        title.focus();
        announce(T.feedback.undone);
      } catch (error) {
        failure.replaceChildren(problem(error));
      }
    };
    show(
      h("div", { class: "feedback__thanks" }, icon("check"), h("div", {}, h("p", {}, h("strong", { text: T.feedback.thanks }), " ", words), given.note && h("p", { class: "fine", text: T.feedback.note(given.note) }))),
      h("p", {}, h("strong", { class: "feedback__outlook", text: outlook(given) })),
      given.now && h("p", { text: T.feedback.now[given.now.state](given.now.version) }),
      given.reason && h("p", { class: "fine", text: given.reason }),
      h(
        "div",
        { class: "row" },
        h("button", { class: "button", type: "button", text: T.feedback.change, onclick: again }),
        h("button", { class: "button", type: "button", text: T.feedback.undo, onclick: undo }),
      ),
    );
  }

  function ask(earlier = null) {
    const note = h("textarea", { id: noteId, rows: 2, maxlength: LONGEST_NOTE });
    note.value = earlier || "";
    const perFace = faceChoices(voice ? [] : detection.faces);
    const send = async (answer) => {
      const text = note.value.trim();
      const faces = perFace.labels();
      buttons.forEach((button) => (button.disabled = true));
      announce(T.feedback.sending);
      try {
        const given = await sendFeedback({ id: detection.id, ...answer, ...part, ...(text ? { note: text } : {}), ...(Object.keys(faces).length ? { faces } : {}) });
        thank(given);
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
      detection.overall && h("p", { class: "fine", text: voice ? T.voice.feedbackVoice : T.voice.feedbackFaces }),
      h("label", { class: "field", for: noteId }, h("span", { text: T.feedback.noteLabel }), note),
      perFace.element,
      h("div", { class: "row" }, buttons),
    );
  }

  const given = voice ? detection.voice_feedback : detection.feedback;
  if (given) thank(given);
  else ask();
  return h("section", { class: "card feedback", "aria-labelledby": titleId }, body);
}
