"""What the child read of a file, checked and put into sentences: the parent's side of `reading.py`.

The texts are the file's own and may say anything; they are checked for length and printable characters here, and
wherever they are shown they stand as text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from utils.evidence.marks import MARKS, PLACES
from utils.media_types import Compression, Credentials, CredentialState, Mark, Notice, Proof, Provenance, Says, require

MAX_MARKS, MAX_STEPS, MAX_NAMES, MAX_PARTS = 24, 6, 12, 16
"""Marks, steps of a history, actions, ingredients and problems, and parts that could not be read, that are told."""
MAX_VALUE, MAX_NAME = 140, 60
"""Characters of a text of the file, and of a name in it."""

_ORDER = {value: rank for rank, value in enumerate((*Says, *Proof))}

_CREDENTIALS = {
    CredentialState.UNREAD: "The Content Credentials (C2PA) of the file could not be read.",
    CredentialState.ABSENT: "The file has no Content Credentials (C2PA). Most files have none, so this means nothing.",
    CredentialState.VALID: "Content Credentials signed by {0}, a signer that this server trusts. Nothing was changed "
    "since the signature.",
    CredentialState.UNTRUSTED: "Content Credentials signed by {0}, a signer that this server does not know: the "
    "signature is whole, but anybody can make such a certificate.",
    CredentialState.BROKEN: "The Content Credentials do not hold: the file or its credentials were changed after the "
    "signature, or are damaged. That is about the file as a whole and says nothing about a face.",
}
_ELSEWHERE = "The file names Content Credentials that are kept elsewhere. This server does not fetch them."

_OF_CREDENTIALS, _OF_EARLIER = "Content Credentials", "Content Credentials of an earlier version"
_SIGNERS = {
    _OF_CREDENTIALS: f"The unknown signer of the {_OF_CREDENTIALS}",
    _OF_EARLIER: "The signer of an earlier version",
}
MEASURED = {95: (4.2, 2.1), 70: (22.9, 0.0), 50: (30.2, 0.0), 30: (33.3, 1.0)}
"""By the quality of a JPEG, how many verdicts changed and how many real pictures were called fake, percent: 192
pictures, weights v8, docs/results/robustness.md. No verdict went from fake to real or back."""
CLEAN_ALARMS = 2.1


def unread(why: str) -> Provenance:
    """What is said where nothing could be read."""
    credentials = Credentials(state=CredentialState.UNREAD, text=_CREDENTIALS[CredentialState.UNREAD])
    text = f"What the file says of itself could not be read in full ({why}). The verdict does not depend on it."
    return Provenance(statement=None, credentials=credentials, notices=(Notice("provenance_unread", text),))


def to_provenance(untrusted: Any) -> Provenance:
    """The child's answer (`reading.EvidenceReader.read`) as a checked value; ValueError where it breaks the rules."""
    require(isinstance(untrusted, dict), "no object")
    failed = _texts(untrusted.get("failed"), MAX_PARTS)
    told = untrusted.get("credentials")
    credentials = unread("").credentials if told is None else _credentials(told)
    marks = [*_signed(told or {}, credentials.state), *_marks(untrusted)]
    marks.sort(key=lambda mark: (_ORDER[mark.says], _ORDER[mark.proof]))
    return Provenance(
        statement=_statement(marks, credentials),
        credentials=credentials,
        marks=tuple(marks),
        compression=_compression(untrusted.get("compression")),
        notices=unread(", ".join(failed)).notices if failed else (),
    )


def _text(untrusted: Any, most: int = MAX_NAME) -> str:
    require(isinstance(untrusted, str) and len(untrusted) <= most, "a text that is none, or is too long")
    require(str(untrusted).isprintable(), "a text that cannot be printed")
    return str(untrusted)


def _texts(untrusted: Any, most: int, longest: int = MAX_NAME) -> tuple[str, ...]:
    require(isinstance(untrusted, list) and len(untrusted) <= most, "a list that is none, or is too long")
    return tuple(_text(each, longest) for each in untrusted)


def _signed(told: dict[str, Any], state: CredentialState) -> Iterator[Mark]:
    """Who the credentials say made or changed the file, where they hold; a trusted signer signs what is its own, an
    unknown one and that of an earlier version only state."""
    if state in (CredentialState.VALID, CredentialState.UNTRUSTED):
        own = _texts(told.get("own", []), 2)
        for key, says in (("generator", Says.GENERATED), ("editor", Says.EDITED)):
            if told.get(key) is not None:
                proof = Proof.SIGNED if key in own and state is CredentialState.VALID else Proof.STATED
                where = _OF_CREDENTIALS if key in own else _OF_EARLIER
                yield _mark("c2pa", _text(told[key]), says, proof, where, "")
                return


def _marks(untrusted: dict[str, Any]) -> Iterator[Mark]:
    rows = untrusted.get("marks")
    require(isinstance(rows, list) and len(rows) <= MAX_MARKS, "marks that are none")
    for each in rows or ():
        require(isinstance(each, list) and len(each) == 5, "a mark that is none")
        number, group, place, key, value = each
        require(type(number) is int and 0 <= number < len(MARKS) and place in PLACES, "a mark of no row")
        row, where = MARKS[number], f"{PLACES[place]} {_text(key)}"
        name = row.name.format(_text(group))
        yield _mark(row.code, name, row.says, row.proof, where, _text(value, MAX_VALUE))
    if (camera := untrusted.get("camera")) is not None:
        place, name = _texts(camera, 2, MAX_VALUE)
        require(place in PLACES, "a camera of no place")
        yield _mark("camera", name, Says.CAPTURED, Proof.STATED, PLACES[place], name)
    for step in _texts(untrusted.get("steps"), MAX_STEPS, MAX_VALUE):
        yield _mark("history", step, Says.TOOL, Proof.STATED, "XMP history", step)
    if (source := untrusted.get("source_type")) is not None:
        kind = _text(source, MAX_VALUE).rpartition("/")[2]
        if not kind.lower().endswith(("trainedalgorithmicmedia", "compositesynthetic")):
            yield _mark("source_type", kind, Says.TOOL, Proof.STATED, "digital source type", kind)


def _credentials(told: Any) -> Credentials:
    require(isinstance(told, dict), "credentials that are none")
    state = CredentialState(told.get("state"))
    signer, issuer, signed_at, made_with = (
        None if told.get(key) is None else _text(told[key]) for key in ("signer", "issuer", "signed_at", "made_with")
    )
    types, actions, ingredients, problems = (
        _texts(told.get(key, []), MAX_NAMES) for key in ("source_types", "actions", "ingredients", "problems")
    )
    return Credentials(
        state=state, text=_credentials_text(state, signer, issuer, elsewhere=told.get("elsewhere") is True),
        signer=signer, issuer=issuer, signed_at=signed_at, made_with=made_with,
        source_types=types, actions=actions, ingredients=ingredients, problems=problems,
    )  # fmt: skip


def _compression(told: Any) -> Compression | None:
    if told is None:
        return None
    require(isinstance(told, dict), "a compression that is none")
    quality, before, tables = told.get("quality"), told.get("quality_before"), _text(told.get("tables"))
    require(type(quality) is int and (before is None or (type(before) is int and 0 < before < quality)), "no quality")
    texts = compression_texts(quality, before, tables)
    return Compression(quality=quality, quality_before=before, tables=tables, texts=texts)


def _credentials_text(state: CredentialState, signer: str | None, issuer: str | None, *, elsewhere: bool) -> str:
    """The sentence about Content Credentials."""
    if elsewhere:
        return _ELSEWHERE
    named = f"{signer} ({issuer})" if signer and issuer and signer != issuer else signer or issuer or "somebody unnamed"
    return _CREDENTIALS[state].format(named)


def _mark(code: str, name: str, says: Says, proof: Proof, where: str, value: str) -> Mark:
    """A mark with its sentence."""
    if proof is Proof.SIGNED:
        text = f"{where} state, signed, that the file was {_verb(says)} {name}."
    elif code in ("history", "source_type"):
        text = f"{where}: {name}."
    elif says is Says.TOOL:
        usual = f"{where} is usual for files written by {name}."
        text = usual if proof is Proof.USUAL else f"{where} names {name}."
    elif proof is Proof.USUAL:
        text = f"{where} is usual for files that were {_verb(says)} {name}; it states nothing."
    else:
        never = "; it never lowers suspicion" if says is Says.CAPTURED else ""
        who = _SIGNERS.get(where, where)
        text = f"{who} states that the file was {_verb(says)} {name}. Anybody can write that{never}."
    return Mark(code=code, name=name, says=says, proof=proof, where=where, value=value, text=text)


def _verb(says: Says) -> str:
    return {Says.GENERATED: "generated by", Says.EDITED: "changed by", Says.CAPTURED: "taken with"}[says]


def _statement(marks: Sequence[Mark], signed: Credentials) -> str | None:
    """The sentence under the headline, where the file states that a model made or changed it; the most telling mark.

    Args:
        marks: in their order: what generated before what changed, what is signed before what is stated.
        signed: whose signer is named where the mark is signed.
    """
    stated = [m for m in marks if m.says in (Says.GENERATED, Says.EDITED) and m.proof is not Proof.USUAL]
    if not stated:
        return None
    first = stated[0]
    named = next((m for m in stated if (m.says, m.proof) == (first.says, first.proof) and _is_name(m.name)), first)
    by = f", signed by {signed.signer or signed.issuer}" if named.proof is Proof.SIGNED else ""
    return f"The file itself states that it was {_verb(named.says)} {named.name}{by}."


def _is_name(name: str) -> bool:
    return not name.startswith("a generative model")


def compression_texts(quality: int, before: int | None, tables: str) -> tuple[str, ...]:
    """How the JPEG was saved, and what that did to verdicts where it was measured."""
    about = f"quality {quality}" if tables == "standard" else f"about quality {quality}, with tables of its own"
    saved = f"The JPEG was saved at {about}" + (f", after an earlier saving at about {before}." if before else ".")
    lowest = min(quality, before or quality)
    nearest = min(MEASURED, key=lambda measured: abs(measured - lowest))
    changed, alarms = MEASURED[nearest]
    moved = f"went from {CLEAN_ALARMS:g} to" if alarms != CLEAN_ALARMS else "stayed at"
    tested = "" if nearest == lowest else " (the nearest that was tested)"
    effect = (
        f"In a test of 192 pictures (weights v8), saving at quality {nearest}{tested} changed {changed:g} % of the "
        f"verdicts, none of them between fake and real; false alarms {moved} {alarms:g} %."
    )
    return saved, effect
