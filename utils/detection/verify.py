"""Checking a report: its signature, its file, and whether the same networks and settings give the same score again.

`inference.py --verify report.json file` ends here. A report comes from outside, so nothing in it is trusted: it chooses
a version by name among those on this disk, whose checksum must be the one in the report, and settings within the ranges
of config.ini. Nothing is asked over a network.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.config import REPLAYED, Settings, read_value
from utils.detection.cli import check_readable
from utils.errors import ReportError, TelltaleError, WeightsMissingError
from utils.files import file_sha256
from utils.signatures import Signature, canonical, check_signature, parse_unique
from utils.types import CASE_DOCUMENT, DOCUMENT, DOCUMENT_VERSION, MANIFEST_DOCUMENT, MediaKind, Report
from utils.weights import SPEECH_FOLDER, verify_version, weights_root

TOLERANCE = 1e-3
"""Probabilities that differ by less count as equal: other processors and thread counts round differently."""
OTHER_ARITHMETIC_TOLERANCE = 0.04
"""The same for a replay by another engine or in another precision: each may be .02 away from torch."""
MAX_REPORT_BYTES = 200_000_000
"""The report of a case holds up to 200 of files; that of a long clip of many people takes some 200 kB."""


@dataclass(frozen=True)
class Claim:
    """What a report says that can be checked.

    Args:
        sha256: of the input, 64 hexadecimal digits.
        model_sha256: of its list of checksums.
        probability: calibrated probability of fake, 0..1; None without a face.
        speech: version and sha256 of the network of speech that judged a recording; None for pictures and videos, whose
            verdict is that on faces.
    """

    sha256: str
    model_version: str
    model_sha256: str
    settings: dict[str, str]
    outcome: str
    probability: float | None
    speech: tuple[str, str] | None = None


@dataclass(frozen=True)
class Verification:
    """The outcome of a replay: `same_file` says whether it is the right file, `reproduced` whether the score came back.

    `found` is the new report, None for another file, for a mere list of files, and where a report that was changed
    names what cannot be replayed. `claim` is None where nothing is said of the file that could be replayed.
    """

    signature: Signature
    claim: Claim | None
    same_file: bool
    reproduced: bool
    found: Report | None
    sentences: tuple[str, ...]


def read_document(path: Path) -> tuple[dict[str, Any], bool]:
    """Read a report document, and whether its bytes are still the canonical ones that a server hands out.

    Raises:
        ReportError: it is no report document of a version that we know.
        MediaUnreadableError: the file cannot be opened.
    """
    check_readable(path)
    if path.stat().st_size > MAX_REPORT_BYTES:
        raise ReportError(f"{path.name} is larger than {MAX_REPORT_BYTES / 1e6:g} MB.")
    try:
        untrusted = parse_unique(content := path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{path.name} is not JSON in which every name comes once.") from error
    known = (DOCUMENT, CASE_DOCUMENT, MANIFEST_DOCUMENT)
    if not isinstance(untrusted, dict) or untrusted.get("document") not in known:
        raise ReportError(f"{path.name} is no report: the member `document` is not {DOCUMENT!r}.")
    if untrusted.get("document_version") != DOCUMENT_VERSION:
        raise ReportError(f"{path.name} has another version than {DOCUMENT_VERSION}, the only one known.")
    return untrusted, "signature" not in untrusted or canonical(untrusted) == content


def claim_of(untrusted: dict[str, Any], name: str) -> Claim:
    """What a report document says that can be checked.

    Raises:
        ReportError: it is no report of one file, or a value in it is of the wrong kind.
    """
    if untrusted.get("document") != DOCUMENT:
        raise ReportError(f"{name} is no report of one file.")
    try:
        analysis, model = untrusted["analysis"], untrusted["model"]
        verdict, heard = analysis["verdict"], analysis["media"]["kind"] == MediaKind.AUDIO and analysis["speech"]
        probability = verdict["probability"]
        settings = {str(k): str(v) for k, v in dict(untrusted["settings"]).items()}
        settings.setdefault("max_frames", "16")  # as it was before reports named it
        claim = Claim(
            _text(untrusted["sha256"]), _text(model["version"]), _text(model["sha256"]), settings,
            _text(verdict["outcome"]), None if probability is None else float(probability),
            (_text(heard["model_version"]), _text(heard["model_sha256"])) if heard else None,
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise ReportError(f"{name} lacks a member or has one of the wrong kind: {error!r}.") from error
    if claim.probability is not None and not 0.0 <= claim.probability <= 1.0:
        raise ReportError(f"{name} holds {claim.probability} as a probability.")
    return claim


def _text(untrusted: Any) -> str:
    if not isinstance(untrusted, str):
        raise TypeError(f"{untrusted!r} is no text")
    return untrusted


def settings_of(claim: Claim, own: Settings) -> Settings:
    """One's own settings with those of the report that the score depends on, and its version of the networks.

    A report that was made on a GPU is replayed on whatever there is, by torch. A precision that this processor does not
    have, or in which parity does not hold here, is replaced by the next better one.

    Raises:
        ConfigError: a value in the report is out of range.
    """
    changed: dict[str, Any] = {"weights": dataclasses.replace(own.weights, version=claim.model_version)}
    for section, names in REPLAYED.items():
        given = {name: claim.settings[name] for name in names if name in claim.settings and name != "device"}
        if "fp16" in given.get("precision", ""):  # of a GPU
            del given["precision"]
        values = {name: read_value(section, name, text) for name, text in given.items()}
        changed[section] = dataclasses.replace(getattr(own, section), **values)
    return dataclasses.replace(own, **changed)


def verify_report(
    report: Path, file: Path, own: Settings, trusted: Mapping[str, str | None] | None = None
) -> Verification:
    """Check a report's signature and replay it on a file; of one that was changed, as far as it can be.

    Args:
        report: a report document (`GET /api/detections/{id}/report`), that of a case, or the manifest of its export.
        file: what is said to have been analysed, or to be in the export.
        trusted: keys of which one must have signed it, see `utils.signatures.check_signature`.

    Raises:
        ReportError: the report cannot be read.
        WeightsError: the version is not here, or has another checksum than in the report.
        TelltaleError: the file cannot be analysed.
    """
    document, as_handed_out = read_document(report)
    signature = check_signature(document, trusted)
    check_readable(file)
    sha256 = file_sha256(file)
    claim, listed = _about(document, sha256, report.name)
    said = [signature.sentence]
    if signature.holds and not as_handed_out:
        said.append("Its bytes were written anew since (another spacing or order); what they say is as it was signed.")
    if listed is not None:
        return Verification(signature, None, True, True, None, (*said, f"The file is as it was exported: {listed}."))
    if claim is None or sha256 != claim.sha256:
        said.append("This is another file: its SHA-256 is not in the report.")
        return Verification(signature, claim, False, False, None, tuple(said))
    try:
        found = _replay(claim, file, own)
    except TelltaleError as error:
        if signature.holds:
            raise
        return Verification(signature, claim, True, False, None, (*said, error.detail))
    reproduced, sentences = _compare(claim, found)
    return Verification(signature, claim, True, reproduced, found, (*said, *sentences))


def _about(untrusted: dict[str, Any], sha256: str, name: str) -> tuple[Claim | None, str | None]:
    """What a document claims of a file that can be replayed, and the name under which a manifest lists it.

    Raises:
        ReportError: a value in it is of the wrong kind.
    """
    if untrusted["document"] == DOCUMENT:
        return claim_of(untrusted, name), None
    try:
        if untrusted["document"] == MANIFEST_DOCUMENT:
            return None, next((_text(each["name"]) for each in untrusted["files"] if each["sha256"] == sha256), None)
        reports = [each["report"] for each in untrusted["items"] if each["report"] is not None]
        found = next((each for each in reports if each["sha256"] == sha256), None)
    except (KeyError, TypeError) as error:
        raise ReportError(f"{name} lacks a member or has one of the wrong kind: {error!r}.") from error
    return None if found is None else claim_of(found, name), None


def _replay(claim: Claim, file: Path, own: Settings) -> Report:
    settings = settings_of(claim, own)
    root, faces = weights_root(settings), (claim.model_version, claim.model_sha256)
    for folder, named in ((root, faces), (root / SPEECH_FOLDER, claim.speech)):
        if named and verify_version(folder, named[0]).sha256 != named[1]:
            raise WeightsMissingError(f"The version {named[0]} here has other weights than the report names.")

    from utils.detection.pipeline import analyse, load_analyser  # the networks, only where they are needed

    return analyse(file, load_analyser(settings, speech=claim.speech[0] if claim.speech else None))


def _compare(claim: Claim, found: Report) -> tuple[bool, list[str]]:
    """Whether a replay gave what the report claims, and what is said of it."""
    outcome, probability = found.verdict.outcome.value, found.verdict.probability
    differing = [] if outcome == claim.outcome else [f"The verdict was {claim.outcome} and is now {outcome}."]
    if probability is None or claim.probability is None:
        if probability is not claim.probability:
            differing.append(f"The probability was {claim.probability} and is now {probability}.")
        return not differing, differing or ["No face was found, as in the report."]
    difference, why = abs(probability - claim.probability), _why(claim, found)
    allowed = OTHER_ARITHMETIC_TOLERANCE if why else TOLERANCE
    if not (math.isfinite(difference) and difference <= allowed):
        differing.append(
            f"The probability was {claim.probability:.4f} and is now {probability:.4f}, "
            f"a difference of {difference:.4f}; {allowed:g} is allowed{why}."
        )
    agreed = f"The score is reproduced: {probability:.4f}, {difference:.1e} away from the report{why}."
    return not differing, differing or [agreed]


def _why(claim: Claim, found: Report) -> str:
    """That the replay computed with another engine or in other precisions; empty where the report names the same ones,
    or none.
    """
    names = [name for name in ("engine", "precision") if name in claim.settings]
    if all(claim.settings[name] == str(found.settings.get(name)) for name in names):
        return ""
    told, here = (f"{s.get('engine', '?')} ({s.get('precision', '?')})" for s in (claim.settings, found.settings))
    return f", for it was made by {told} and replayed by {here}"


def missing_settings(claim: Claim) -> tuple[str, ...]:
    """Settings that a report made by an older version does not name; one's own are taken instead."""
    names = [name for of_section in REPLAYED.values() for name in of_section]
    return tuple(name for name in names if name not in claim.settings)
