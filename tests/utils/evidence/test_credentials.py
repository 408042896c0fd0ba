"""Every changed byte of a signed file is found, in the picture and in the credentials, whatever its place."""

from __future__ import annotations

import io
import json
import random
from typing import Any

import c2pa
import pytest

from tests.utils.evidence.signing import CAMERA, MODEL, chain, created, picture, signed
from utils.evidence.answer import to_provenance, unread
from utils.evidence.credentials import Reader
from utils.media_types import CredentialState, Proof


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader(chain()[2].decode())


def test_a_thousand_changed_bytes_are_found(reader: Reader) -> None:
    """But for zeros that fill the room of the signature, which no hash covers and nobody reads: 2 of 1,000."""
    missed = []
    for kind, mime in (("JPEG", "image/jpeg"), ("PNG", "image/png")):
        healthy = signed(picture(kind), created(CAMERA), mime)
        assert reader.read(io.BytesIO(healthy), mime)["state"] == "valid"
        rng = random.Random(7)
        for _ in range(500):
            place = rng.randrange(len(healthy))
            damaged = bytearray(healthy)
            damaged[place] ^= 1 << rng.randrange(8)
            if reader.read(io.BytesIO(bytes(damaged)), mime)["state"] != "broken":
                missed.append(healthy[place - 12 : place + 13])
    assert len(missed) <= 2
    assert not any(map(any, missed))


def test_credentials_that_are_kept_elsewhere_are_not_fetched(reader: Reader) -> None:
    certificates, key, _ = chain()
    signer = c2pa.Signer.from_info(c2pa.C2paSignerInfo(b"es256", certificates, key, None))
    builder = c2pa.Builder(
        {
            "claim_generator_info": [{"name": "x"}],
            "assertions": [{"label": "c2pa.actions", "data": {"actions": created(MODEL)}}],
        }
    )
    builder.set_no_embed()
    builder.set_remote_url("http://127.0.0.1:9/manifest.c2pa")
    held = io.BytesIO()
    builder.sign(signer, "image/jpeg", io.BytesIO(picture()), held)
    assert reader.read(io.BytesIO(held.getvalue()), "image/jpeg") == {"state": "absent", "elsewhere": True}


@pytest.mark.parametrize(
    ("document", "generator", "editor"),
    [
        ({}, None, None),
        (
            {
                "active_manifest": "a",
                "manifests": {
                    "a": {"label": "a", "ingredients": [{"active_manifest": "b", "relationship": "componentOf"}]},
                    "b": {"label": "b", "assertions": [
                        {"label": "c2pa.actions", "data": {"actions": created(MODEL, "M")}}]},
                },
            },
            None,
            "M",
        ),
        (
            {
                "active_manifest": "a",
                "manifests": {
                    "a": {"label": "a", "ingredients": [{"active_manifest": "a", "relationship": "parentOf"}],
                          "claim_generator": "Old 1.0", "assertions": [
                        {"label": "c2pa.actions", "data": {"actions": [{"digitalSourceType": MODEL}]}}]},
                },
            },
            "Old 1.0",
            "Old 1.0",
        ),
    ],
)  # fmt: skip
def test_who_made_it(
    monkeypatch: pytest.MonkeyPatch, reader: Reader, document: Any, generator: Any, editor: Any
) -> None:
    """A part made by a model does not make the whole so, and manifests that go in circles end."""
    monkeypatch.setattr(c2pa.Reader, "json", lambda self: json.dumps(document))
    found = reader.read(io.BytesIO(signed(picture(), created(CAMERA))), "image/jpeg")
    assert (found["generator"], found["editor"]) == (generator, editor)


# The parent takes the child's answer for hostile: wrong kinds, lengths, rows and places are refused.

GOOD: dict[str, Any] = {
    "marks": [[0, "", "png", "parameters", "x"]], "camera": ["exif", "Canon EOS R5"], "steps": ["saved"],
    "source_type": "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture",
    "credentials": {"state": "absent"}, "compression": {"quality": 90, "quality_before": 40, "tables": "standard"},
    "failed": [],
}  # fmt: skip
BAD: list[dict[str, Any]] = [
    {"marks": [[9999, "", "png", "x", "x"]]}, {"marks": [[True, "", "png", "x", "x"]]}, {"marks": [["0"] * 5]},
    {"marks": [[0, "", "nowhere", "x", "x"]]}, {"marks": [[0, "", "png", "x", "x" * 141]]}, {"marks": None},
    {"marks": [[0, "", "png", "x", "x"]] * 25}, {"marks": [[0, "", "png", "a\nb", "x"]]}, {"camera": ["exif"]},
    {"camera": ["nowhere", "x"]}, {"steps": ["x"] * 7}, {"steps": "x"}, {"source_type": 3}, {"failed": ["x"] * 17},
    {"credentials": {"state": "perfect"}}, {"credentials": []}, {"credentials": {"state": "valid", "signer": 3}},
    {"credentials": {"state": "valid", "own": 3}},
    {"credentials": {"state": "valid", "problems": ["x"]}}, {"credentials": {"state": "broken", "actions": ["x"] * 13}},
    {"compression": {"quality": 0, "quality_before": None, "tables": "standard"}}, {"compression": []},
    {"compression": {"quality": 50, "quality_before": 60, "tables": "standard"}},
    {"compression": {"quality": 50, "quality_before": None, "tables": "mine"}},
    {"compression": {"quality": True, "quality_before": None, "tables": "own"}},
]  # fmt: skip


def test_a_good_answer() -> None:
    found = to_provenance(GOOD)
    assert [mark.code for mark in found.marks] == ["swarmui", "camera", "history", "source_type"]
    assert found.statement == "The file itself states that it was generated by SwarmUI."
    assert found.compression is not None


@pytest.mark.parametrize("change", BAD, ids=str)
def test_a_bad_answer_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        to_provenance(GOOD | change)


@pytest.mark.parametrize("answer", [None, [], "x", 3])
def test_no_answer_is_refused(answer: object) -> None:
    with pytest.raises(ValueError, match="no object"):
        to_provenance(answer)


def test_parts_that_failed_are_told() -> None:
    found = to_provenance(GOOD | {"failed": ["credentials"], "credentials": None})
    assert found.notices[0].code == "provenance_unread"
    assert "credentials" in found.notices[0].text
    assert found.credentials.state is CredentialState.UNREAD
    assert "could not be read" in found.credentials.text


def test_only_a_trusted_signature_signs_and_only_what_is_its_own() -> None:
    said = {"signer": "S", "issuer": "O", "generator": "M", "own": ["generator"]}
    for state, proofs in (("valid", [Proof.SIGNED]), ("untrusted", [Proof.STATED]), ("broken", []), ("absent", [])):
        found = to_provenance(GOOD | {"credentials": {"state": state, **said}})
        assert [mark.proof for mark in found.marks if mark.code == "c2pa"] == proofs
    for changed in ({"own": []}, {"own": ["editor"]}):
        found = to_provenance(GOOD | {"credentials": {"state": "valid", **said, **changed}})
        (mark,) = (mark for mark in found.marks if mark.code == "c2pa")
        assert (mark.proof, mark.where) == (Proof.STATED, "Content Credentials of an earlier version")


def test_nothing_read_says_nothing() -> None:
    found = unread("decoder_limit")
    assert (found.statement, found.marks, found.compression) == (None, (), None)
    assert "The verdict does not depend on it" in found.notices[0].text
