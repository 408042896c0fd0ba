"""What the child read of a file, checked and put into sentences: the parent's side of `reading.py`.

The texts are the file's own and may say anything; they are checked for length and printable characters here, and
wherever they are shown they stand as text.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from utils.evidence import words
from utils.evidence.marks import MARKS, PLACES
from utils.media_types import Compression, Credentials, CredentialState, Mark, Notice, Proof, Provenance, Says, require

MAX_MARKS, MAX_STEPS, MAX_NAMES, MAX_PARTS = 24, 6, 12, 16
"""Marks, steps of a history, actions, ingredients and problems, and parts that could not be read, that are told."""
MAX_VALUE, MAX_NAME = 140, 60
"""Characters of a text of the file, and of a name in it."""

_ORDER = {value: rank for rank, value in enumerate((*Says, *Proof))}


def unread(why: str) -> Provenance:
    """What is said where nothing could be read."""
    credentials = Credentials(state=CredentialState.UNREAD, text=words.CREDENTIALS[CredentialState.UNREAD])
    notice = Notice("provenance_unread", words.unread(why))
    return Provenance(statement=None, credentials=credentials, notices=(notice,))


def to_provenance(untrusted: Any) -> Provenance:
    """The child's answer (`reading.EvidenceReader.read`) as a checked value; ValueError where it breaks the rules."""
    require(isinstance(untrusted, dict), "no object")
    failed = _texts(untrusted.get("failed"), MAX_PARTS)
    told = untrusted.get("credentials")
    credentials = unread("").credentials if told is None else _credentials(told)
    marks = [*_signed(told or {}, credentials.state), *_marks(untrusted)]
    marks.sort(key=lambda mark: (_ORDER[mark.says], _ORDER[mark.proof]))
    return Provenance(
        statement=words.statement(marks, credentials),
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
                where = words.OF_CREDENTIALS if key in own else words.OF_EARLIER
                yield words.mark("c2pa", _text(told[key]), says, proof, where, "")
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
        yield words.mark(row.code, name, row.says, row.proof, where, _text(value, MAX_VALUE))
    if (camera := untrusted.get("camera")) is not None:
        place, name = _texts(camera, 2, MAX_VALUE)
        require(place in PLACES, "a camera of no place")
        yield words.mark("camera", name, Says.CAPTURED, Proof.STATED, PLACES[place], name)
    for step in _texts(untrusted.get("steps"), MAX_STEPS, MAX_VALUE):
        yield words.mark("history", step, Says.TOOL, Proof.STATED, "XMP history", step)
    if (source := untrusted.get("source_type")) is not None:
        kind = _text(source, MAX_VALUE).rpartition("/")[2]
        if not kind.lower().endswith(("trainedalgorithmicmedia", "compositesynthetic")):
            yield words.mark("source_type", kind, Says.TOOL, Proof.STATED, "digital source type", kind)


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
        state=state, text=words.credentials(state, signer, issuer, elsewhere=told.get("elsewhere") is True),
        signer=signer, issuer=issuer, signed_at=signed_at, made_with=made_with,
        source_types=types, actions=actions, ingredients=ingredients, problems=problems,
    )  # fmt: skip


def _compression(told: Any) -> Compression | None:
    if told is None:
        return None
    require(isinstance(told, dict), "a compression that is none")
    quality, before, tables = told.get("quality"), told.get("quality_before"), _text(told.get("tables"))
    require(type(quality) is int and (before is None or (type(before) is int and 0 < before < quality)), "no quality")
    texts = words.compression(quality, before, tables)
    return Compression(quality=quality, quality_before=before, tables=tables, texts=texts)
