"""The report of one analysis as a document that stands by itself; docs/report.schema.json is its JSON Schema.

It holds what is needed to check it later: the sha256 of the input, the version of the networks with its checksum, the
settings, and the limits of the method. `inference.py --verify report.json file` replays it.
"""

from __future__ import annotations

from typing import Any

from utils.detection.verify import DOCUMENT, DOCUMENT_VERSION
from web_app.version import VERSION

LIMITS = (
    "Only faces were examined. Sound, text and everything else in the file were not.",
    "The probability holds for material like the validation data. Generators, cameras and compression that were not "
    "part of it can mislead the networks in both directions.",
    "Strong compression, small faces, filters and screenshots hide traces; retouching can imitate them.",
    "The result is evidence and no proof. Never decide about a person on it alone.",
)
SHORT_LIMITS = "Faces only; holds for material like the validation data; evidence, no proof."


def build_document(analysis: dict[str, Any], name: str, analysed: str) -> dict[str, Any]:
    """The document for a finished analysis.

    Args:
        analysis: its report as the API gives it.
        name: of the file, as it was given.
        analysed: when it ended, ISO 8601.

    Returns:
        JSON values that fit `ReportDocument` of the API; the same analysis gives the same document.
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
        "reproduce": "python inference.py --verify report.json FILE",
    }
