"""The report of one analysis as a document that stands by itself; docs/report.schema.json is its JSON Schema.

It holds what is needed to check it later: the sha256 of the input, the version of the networks with its checksum, the
settings, and the limits of the method. `inference.py --verify report.json file` replays it. What else the pages of
reports need is here too.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

from utils.signatures import canonical
from utils.types import DOCUMENT, DOCUMENT_VERSION
from web_app import VERSION

LIMITS = (
    "Only faces, and the voice where the report says so, were examined. Text and everything else in the file were not.",
    "The probability holds for material like the validation data. Generators, cameras and compression that were not "
    "part of it can mislead the networks in both directions.",
    "Strong compression, small faces, filters and screenshots hide traces; retouching can imitate them.",
    "The result is evidence and no proof. Never decide about a person on it alone.",
)
SHORT_LIMITS = "Faces and voices only; holds for material like the validation data; evidence, no proof."
TONES = {"fake": "red", "real": "green", "inconclusive": "amber", "no_face": "slate", "no_speech": "slate"}
REPRODUCE = ".venv/bin/python inference.py --verify {} FILE"
"""The command that checks a file with a document of this name."""


def build_document(analysis: dict[str, Any], name: str, analysed: str) -> dict[str, Any]:
    """The document for a finished analysis, `ReportDocument` of the API; the same analysis gives the same document.

    Args:
        analysis: its report as the API gives it.
        name: of the file, as it was given.
        analysed: when it ended, ISO 8601.
    """
    return {
        "document": DOCUMENT,
        "document_version": DOCUMENT_VERSION,
        "telltale_version": VERSION,
        "id": analysis["id"],
        "name": name,
        "analysed": analysed,
        "sha256": analysis["media"]["sha256"],
        "model": {"version": analysis["model_version"], "sha256": analysis["model_sha256"]},
        "settings": analysis.get("settings", {}),
        "limits": list(LIMITS),
        "analysis": analysis,
        "reproduce": REPRODUCE.format("report.json"),
    }


def moment(stamp: str) -> str:
    """An ISO 8601 time for people: `2026-01-02 03:04:05 UTC`."""
    return datetime.fromisoformat(stamp).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def checksum(document: dict[str, Any]) -> str:
    """SHA-256 of the JSON form of a signed document, 64 hexadecimal digits."""
    return hashlib.sha256(canonical(document)).hexdigest()


def suspicious_stretches(speech: dict[str, Any]) -> list[tuple[float, float]]:
    """Where windows more likely hold a made voice than not: start and end in seconds, joined where they overlap."""
    joined: list[tuple[float, float]] = []
    for window in speech["windows"]:
        if window["probability"] <= speech["threshold"]:
            continue
        if joined and window["start_s"] <= joined[-1][1]:
            joined[-1] = (joined[-1][0], window["end_s"])
        else:
            joined.append((window["start_s"], window["end_s"]))
    return joined
