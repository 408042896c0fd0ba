// What the file says of itself: credentials, marks with what each proves, and how it was saved. Facts beside the verdict.

import { h, icon } from "./dom.js";
import { T } from "./strings.js";

const CREDENTIAL_TONES = { valid: "real", untrusted: "inconclusive", broken: "fake", absent: "no_face", unread: "no_face" };

/** The sentence under the headline where the file states that a model made or changed it; null for everything else. */
export function statementLine({ provenance }) {
  if (!provenance || !provenance.statement) return null;
  return h("p", { class: "verdict__statement" }, icon("file"), h("strong", { text: provenance.statement }));
}

const badge = (tone, words, name) => h("span", { class: "chip chip--proof", "data-tone": tone }, name && icon(name), h("span", { text: words }));

const row = (term, value) => (value && value.length ? h("div", {}, h("dt", { text: term }), h("dd", { text: Array.isArray(value) ? value.join(", ") : value })) : null);

function credentialsPart({ credentials }) {
  const facts = [
    row(T.provenance.signer, [credentials.signer, credentials.issuer].filter(Boolean)),
    row(T.provenance.signedAt, credentials.signed_at),
    row(T.provenance.madeWith, credentials.made_with),
    row(T.provenance.actions, credentials.actions),
    row(T.provenance.sourceTypes, credentials.source_types),
    row(T.provenance.ingredients, credentials.ingredients),
    row(T.provenance.problems, credentials.problems),
  ].filter(Boolean);
  return h(
    "div",
    { class: "provenance__part" },
    h("h3", { class: "section-title", text: T.provenance.credentials }),
    h("p", {}, badge(CREDENTIAL_TONES[credentials.state], T.provenance.state[credentials.state]), ` ${credentials.text}`),
    facts.length > 0 && h("dl", { class: "facts" }, facts),
  );
}

function marksPart({ marks }) {
  if (!marks.length) return null;
  const one = (mark) =>
    h(
      "li",
      { "data-code": mark.code },
      badge(mark.proof === "signed" ? "real" : "no_face", T.provenance.proof[mark.proof]),
      h("div", {}, h("p", { text: mark.text }), mark.value && mark.value !== mark.name && h("p", { class: "fine" }, h("code", { text: mark.value }))),
    );
  return h(
    "div",
    { class: "provenance__part" },
    h("h3", { class: "section-title", text: T.provenance.marks }),
    h("ul", { class: "marks" }, marks.map(one)),
    h("p", { class: "fine", text: T.provenance.proofHelp }),
  );
}

/** The panel under the verdict, open where the file has something to say; null in old reports. */
export function provenancePanel({ provenance }) {
  if (!provenance) return null;
  const { credentials, marks, compression } = provenance;
  const digest = [
    T.provenance.digest[credentials.state],
    marks.length > 0 && T.provenance.count(marks.length),
    compression && T.provenance.quality(compression.quality),
  ].filter(Boolean);
  return h(
    "details",
    { class: "card details provenance", open: Boolean(provenance.statement) || !["absent", "unread"].includes(credentials.state) },
    h("summary", {}, h("span", { text: T.provenance.title }), h("span", { class: "provenance__digest", text: digest.join(" · ") })),
    h(
      "div",
      { class: "provenance__body" },
      h("p", { class: "fine", text: T.provenance.help }),
      credentialsPart(provenance),
      marksPart(provenance),
      compression && h("div", { class: "provenance__part" }, h("h3", { class: "section-title", text: T.provenance.compression }), compression.texts.map((text) => h("p", { text }))),
      provenance.notices.map((notice) => h("p", { class: "note", "data-code": notice.code, text: notice.text })),
    ),
  );
}
