"""Every changed byte of a signed file is found, in the picture and in the credentials, whatever its place."""

from __future__ import annotations

import io
import json
import random
import tracemalloc
from pathlib import Path
from typing import Any

import c2pa
import numpy as np
import pytest
from PIL import Image
from scipy.fft import dctn
from skimage import data as pictures

from tests.utils.evidence.signing import CAMERA, MODEL, chain, created, picture, signed
from utils.evidence import compression
from utils.evidence.answer import CLEAN_ALARMS, MEASURED, compression_texts, to_provenance, unread
from utils.evidence.compression import TABLES, read_compression
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


# Qualities of JPEGs: read off the tables, and found again after a second saving where that is promised.

PICTURES = [Image.fromarray(getattr(pictures, name)()) for name in ("astronaut", "chelsea", "coffee", "rocket")]
FIRST, SECOND = (30, 45, 60, 75), (50, 65, 80, 90, 95)
ROBUSTNESS = Path(__file__).resolve().parents[3] / "docs" / "results" / "robustness.md"


def saved(image: Image.Image, quality: int) -> bytes:
    held = io.BytesIO()
    image.save(held, "JPEG", quality=quality)
    return held.getvalue()


def read(data: bytes) -> tuple[int, int | None, str]:
    found = read_compression(io.BytesIO(data))
    assert found is not None
    return found["quality"], found["quality_before"], found["tables"]


@pytest.mark.parametrize("quality", range(30, 96, 5))
def test_one_saving_has_its_quality_and_no_other(quality: int) -> None:
    for image in PICTURES:
        assert read(saved(image, quality)) == (quality, None, "standard")


def test_an_earlier_saving_at_a_clearly_lower_quality_is_found() -> None:
    """Within 2 of the true quality in nine of ten pairs that lie 10 apart or more; never a wrong one."""
    found = asked = 0
    for image in PICTURES:
        for first in FIRST:
            once = Image.open(io.BytesIO(saved(image, first)))
            for second in SECOND:
                _, before, _ = read(saved(once, second))
                if second >= first + 10:
                    asked += 1
                    found += before is not None
                assert before is None or abs(before - first) <= 2, (first, second, before)
    assert asked == 56
    assert found >= 0.9 * asked


def test_other_tables_than_the_standard_ones() -> None:
    held = io.BytesIO()
    own = [max(1, int(step) - 1) for step in TABLES[79]]
    PICTURES[0].save(held, "JPEG", qtables=[own, own])
    quality, before, tables = read(held.getvalue())
    assert (before, tables) == (None, "own")
    assert 78 <= quality <= 88


def test_resizing_in_between_leaves_no_grid() -> None:
    smaller = Image.open(io.BytesIO(saved(PICTURES[0], 50))).resize((400, 400))
    assert read(saved(smaller, 90)) == (90, None, "standard")


def test_a_file_without_pixels_to_look_at() -> None:
    for image in (Image.new("RGB", (40, 40), "white"), Image.new("L", (33, 64), 128), Image.new("CMYK", (40, 40))):
        assert read(saved(image, 60))[1:] == (None, "standard")


def test_only_the_frequencies_that_are_looked_at_are_computed() -> None:
    luma = np.random.default_rng(0).integers(3, 253, (16, 24), np.uint8)
    luma[8:, :8] = 255
    whole = [dctn(luma[y : y + 8, x : x + 8].astype(float), norm="ortho") for y in (0, 8) for x in (0, 8, 16)]
    wanted = [[block[place] for place in compression._FREQUENCIES] for i, block in enumerate(whole) if i != 3]
    assert np.allclose(compression._coefficients(luma), wanted, atol=1e-4)


def test_a_large_picture_costs_no_more_than_its_middle() -> None:
    data = saved(PICTURES[0].convert("L").resize((6000, 4000)), 80)
    tracemalloc.start()
    assert read(data)[0] == 80
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60_000_000


def test_what_is_said_of_reliability_was_measured() -> None:
    """The numbers stand in the table of robustness, and no verdict went from fake to real there."""
    text = ROBUSTNESS.read_text(encoding="utf-8")
    assert "192 pictures" in text
    assert text.startswith("# Robustness of v8")
    rows = {cells[1].split("(")[0].strip(): cells for line in text.splitlines() if len(cells := line.split("|")) > 6}
    assert float(rows["clean"][4].strip(" %")) == CLEAN_ALARMS
    for quality, (changed, alarms) in MEASURED.items():
        _, _, _, _, false_alarms, flips, of_all, *_ = rows[f"JPEG {quality}"]
        assert (float(of_all.strip(" %")), float(false_alarms.strip(" %"))) == (changed, alarms)
        assert float(flips.strip(" %")) == 0.0


def test_the_sentences() -> None:
    saving, effect = compression_texts(90, 40, "standard")
    assert saving == "The JPEG was saved at quality 90, after an earlier saving at about 40."
    assert "quality 50 (the nearest that was tested) changed 30.2 %" in effect
    assert "saving at quality 95 (the nearest" in compression_texts(92, None, "standard")[1]
    assert "saving at quality 95 changed" in compression_texts(95, None, "standard")[1]
    assert compression_texts(88, None, "own")[0] == "The JPEG was saved at about quality 88, with tables of its own."
