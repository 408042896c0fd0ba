"""Every changed byte of a signed file is found, in the picture and in the credentials, whatever its place."""

from __future__ import annotations

import io
import json
import random
from typing import Any

import c2pa
import pytest

from tests.utils.evidence.signing import CAMERA, MODEL, chain, created, picture, signed
from utils.evidence.credentials import Reader


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
