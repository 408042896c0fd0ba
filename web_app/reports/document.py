"""The report of one analysis as a document that stands by itself; docs/report.schema.json is its JSON Schema.

It holds what is needed to check it later: the sha256 of the input, the version of the networks with its checksum, the
settings, and the limits of the method. `inference.py --verify report.json file` replays it. The rows of facts,
percentages and times that HTML and PDF say alike are made here too.
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
Fact = tuple[str, str]
"""One line of a table of facts: its name and value."""


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
        "reproduce": REPRODUCE.format("report.json"),
    }


def percent(value: float | None) -> str:
    """`93.4 %`, or a dash."""
    return "—" if value is None else f"{100 * value:.1f} %"


def moment(stamp: str) -> str:
    """An ISO 8601 time for people: `2026-01-02 03:04:05 UTC`."""
    return datetime.fromisoformat(stamp).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def input_facts(document: dict[str, Any]) -> list[Fact]:
    """What was analysed."""
    media = document["analysis"]["media"]
    pixels = f"{media['width']} × {media['height']} pixels, " if media["width"] else ""
    facts = [
        ("File", document["name"]),
        ("SHA-256", document["sha256"]),
        ("Kind", f"{media['kind']}, {media['format']}" + (f" ({media['codec']})" if media["codec"] else "")),
        ("Size", f"{pixels}{media['size_bytes']:,} bytes"),
    ]
    if media["duration_s"] is not None:
        facts.append(("Duration", f"{media['duration_s']:.2f} s"))
    if sound := media.get("sound"):
        channels = "mono" if sound["channels"] == 1 else f"{sound['channels']} channels"
        facts.append(("Sound", f"{sound['codec']}, {sound['rate_hz']:,} Hz, {channels}"))
    return facts


def method_facts(document: dict[str, Any]) -> list[Fact]:
    """How it was analysed: versions, times and settings."""
    analysis, model = document["analysis"], document["model"]
    facts = [
        ("Analysed", moment(document["analysed"])),
        ("Report", document["id"]),
        ("Telltale", document["telltale_version"]),
        ("Networks", model["version"]),
        ("Networks, SHA-256", model["sha256"]),
        ("Time taken", f"{analysis['times_ms'].get('total', 0.0) / 1000:.2f} s"),
    ]
    settings = document["settings"] or {"threshold": analysis["threshold"]}
    return [*facts, ("Settings", ", ".join(f"{name} = {value}" for name, value in settings.items()))]


def signature_facts(document: dict[str, Any]) -> list[Fact]:
    """By what a signed document is known again: the checksum of its JSON form, and who signed that."""
    return [
        ("This report, SHA-256 of its JSON form", hashlib.sha256(canonical(document)).hexdigest()),
        ("Signed with the key", document["signature"]["key"]),
    ]


def speech_facts(speech: dict[str, Any]) -> list[Fact]:
    """What was heard, and which stretches of it are suspicious."""
    peak = max((window["probability"] for window in speech["windows"]), default=None)
    facts = [
        ("Speech", f"{speech['speech_s']:.1f} of {speech['duration_s']:.1f} s"),
        ("Highest window", percent(peak)),
        ("Voice network", speech["model_version"]),
        ("Voice network, SHA-256", speech["model_sha256"]),
    ]
    stretches = suspicious_stretches(speech)
    if stretches:
        facts.insert(2, ("Suspicious", ", ".join(f"{start:.1f} to {end:.1f} s" for start, end in stretches)))
    return facts


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


def provenance_facts(said: dict[str, Any]) -> list[Fact]:
    """What the file says of itself, each with what it proves."""
    credentials, compression = said["credentials"], said["compression"]
    facts = [("Credentials", credentials["text"])]
    for name, key in (("Signed on", "signed_at"), ("Written by", "made_with")):
        if credentials[key]:
            facts.append((name, credentials[key]))
    for name, key in (("Actions", "actions"), ("Made of", "ingredients"), ("Problems", "problems")):
        if credentials[key]:
            facts.append((name, ", ".join(credentials[key])))
    for mark in said["marks"]:
        value = f" “{mark['value']}”" if mark["value"] not in ("", mark["name"]) else ""
        facts.append((mark["proof"].capitalize(), mark["text"] + value))
    if compression is not None:
        facts.append(("Compression", " ".join(compression["texts"])))
    return [*facts, *(("Note", notice["text"]) for notice in said["notices"])]


def verdict_sentence(verdict: dict[str, Any]) -> str:
    """Probability and interval of a verdict in one sentence."""
    if verdict["probability"] is None:
        return "Nothing was judged, so there is no probability."
    sentence = f"Probability of manipulation {percent(verdict['probability'])}"
    if verdict["interval"] is None:
        return f"{sentence}, moved by users' corrections, so that there is no interval."
    low, high = verdict["interval"]
    return f"{sentence}, 95 % interval {percent(low)} to {percent(high)}."


def face_sentence(face: dict[str, Any]) -> str:
    """What is said of a person, and the times that it is about where these are not the whole clip; else why nothing is.

    Reports of before do not say `judged`.
    """
    if not face.get("judged", True):
        return str(face["verdict"]["reasons"][0]["text"])
    spans = " and ".join(f"{span['start_s']:.1f} to {span['end_s']:.1f} s" for span in face.get("spans", ()))
    return verdict_sentence(face["verdict"]) + (f" It is about {spans}." if spans else "")


def face_tone(face: dict[str, Any]) -> str:
    """The colour of a face."""
    return TONES[face["verdict"]["outcome"] if face.get("judged", True) else "no_face"]


def expert_rows(experts: list[dict[str, Any]]) -> list[tuple[str, str, str, str]]:
    """Name, what it looks at, probability and weight of each expert."""
    return [
        (
            expert["title"],
            expert["looks_at"] if expert["available"] else expert["missing_because"] or "missing",
            percent(expert["probability"]),
            percent(expert["weight"]) if expert["available"] else "—",
        )
        for expert in experts
    ]


def summary_row(item: dict[str, Any]) -> tuple[str, str, str]:
    """Name, verdict and probability of one file of a case; one of faces and voice together has no probability."""
    if item["report"] is None:
        return item["name"], item["state"], percent(None)
    analysis = item["report"]["analysis"]
    if overall := analysis.get("overall"):
        return item["name"], overall["headline"], percent(None)
    return item["name"], analysis["verdict"]["headline"], percent(analysis["verdict"]["probability"])


def file_facts(report: dict[str, Any]) -> list[Fact]:
    """What is known of one file of a case beside its verdict."""
    analysis, facts = report["analysis"], input_facts(report)[1:]
    if overall := analysis.get("overall"):
        facts.append(("Faces and voice together", overall["headline"]))
    if (speech := analysis.get("speech")) and analysis["media"]["kind"] != "audio":
        facts.append(("Voice", f"{speech['verdict']['headline']} {verdict_sentence(speech['verdict'])}"))
    if said := analysis.get("provenance"):
        facts += provenance_facts(said)
    return facts + method_facts(report)
