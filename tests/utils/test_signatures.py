"""Signed documents: whole ones are told from changed ones, and trusted keys from others."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from utils.errors import ReportError
from utils.signatures import canonical, check_signature, parse_unique, read_keys, sign

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))
DOCUMENT: dict[str, Any] = {
    "document": "telltale-report", "analysed": "2026-03-01T12:00:01+00:00", "name": "Bär 中.png", "size": 123456,
    "probability": 0.1 + 0.2, "small": 1e-7, "whole": 1.0, "none": None, "faces": [{"box": [1.5, 2.0, 3.25, 4.0]}] * 9,
}  # fmt: skip
"""With what JSON writers disagree on: other letters, exponents, whole floats."""


def test_canonical_json_is_that_of_the_standard() -> None:
    """Source: the numbers and the order of RFC 8785, section 3.2.2 and 3.2.3."""
    numbers = [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001]
    assert canonical(numbers) == b"[333333333.3333333,1e+30,4.5,0.002,1e-27]"
    given = {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\u0080": 6, "\u00f6": 7}
    assert list(json.loads(canonical(given)).values()) == [2, 4, 6, 7, 1, 5, 3]


def test_a_signed_document_stays_whole_through_any_writer_of_json() -> None:
    signed = sign(DOCUMENT, KEY)
    assert check_signature(signed).state == "whole"
    assert check_signature(json.loads(canonical(signed))).state == "whole"
    assert check_signature(json.loads(json.dumps(signed, indent=2, sort_keys=True))).state == "whole"
    assert sign(DOCUMENT, KEY) == signed


def test_each_of_a_thousand_changed_bytes_is_found() -> None:
    """Told as changed, or, where the name of the signature itself was hit, as not signed."""
    content, rng = canonical(sign(DOCUMENT, KEY)), np.random.default_rng(0)
    missed = []
    for _ in range(1000):
        at, flip = int(rng.integers(len(content))), int(rng.integers(1, 256))
        changed = content[:at] + bytes([content[at] ^ flip]) + content[at + 1 :]
        try:
            untrusted = parse_unique(changed)
            found = check_signature(untrusted).state in ("broken", "unsigned") or canonical(untrusted) != changed
        except (ValueError, ReportError):
            found = True
        if not found:
            missed.append(changed)
    assert missed == []


@pytest.mark.parametrize(
    "change",
    [{"key": "0" * 64}, {"value": ""}, {"value": 3}, {"public_key": "AAAA"}, {"algorithm": "none"}, {"more": 1}],
)
def test_a_signature_that_is_none_is_broken(change: dict[str, Any]) -> None:
    signed = sign(DOCUMENT, KEY)
    assert check_signature({**signed, "signature": {**signed["signature"], **change}}).state == "broken"
    assert check_signature({**signed, "signature": None}).state == "broken"
    assert check_signature({**signed, "probability": float("nan")}).state == "broken"


def test_a_key_inside_a_document_proves_nothing_about_who_signed_it() -> None:
    mine, forged = sign(DOCUMENT, KEY), sign({**DOCUMENT, "probability": 0.9}, OTHER)
    key = mine["signature"]["key"]
    assert check_signature(forged).state == "whole"
    assert "cannot prove" in check_signature(forged).sentence
    assert check_signature(mine, {key: None}).state == "trusted"
    assert check_signature(forged, {key: None}).state == "unknown"
    assert check_signature(DOCUMENT).state == "unsigned"
    assert not check_signature(DOCUMENT, {key: None}).holds  # or a forger would take the signature off


@pytest.mark.parametrize(
    ("until", "state"),
    [("2026-03-02T00:00:00+00:00", "trusted"), ("2026-03-01T12:00:00+00:00", "expired"), (None, "trusted")],
)
def test_a_retired_key_stands_for_reports_of_its_time(until: str | None, state: str) -> None:
    signed = sign(DOCUMENT, KEY)
    assert check_signature(signed, {signed["signature"]["key"]: until}).state == state


def test_trusted_keys_come_as_a_document_or_a_fingerprint() -> None:
    key = "ab" * 32
    assert read_keys(f" {key.upper()}\n") == {key: None}
    entry = {"key": key, "until": "2026-03-02T00:00:00+00:00"}
    assert read_keys(json.dumps({"document": "telltale-keys", "keys": [entry]})) == {key: entry["until"]}
    for wrong in (
        "",
        "ab",
        "{}",
        '{"document": "telltale-keys", "keys": [{"key": "x", "until": "soon"}]}',
        "[" * 99999,
    ):
        with pytest.raises(ReportError):
            read_keys(wrong)


def test_a_name_that_comes_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        parse_unique('{"a": 1, "a": 2}')
