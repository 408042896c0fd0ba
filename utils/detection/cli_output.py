"""The results of many files as a table, CSV, JSON or JSON Lines: after `utils.detection.pipeline.analyse`.

Names of files are not trusted: they may hold control characters, bytes that are no text, or a spreadsheet formula.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.errors import TelltaleError
from utils.log import FORMULA_STARTS, escape, safe_cell

if TYPE_CHECKING:
    from utils.types import Report

JSON_SCHEMA_VERSION = 1
CSV_COLUMNS = (
    "file", "outcome", "fake_probability", "interval_low", "interval_high", "faces", "kind", "format", "width",
    "height", "duration_s", "ms", "threshold", "model_version", "sha256", "error_code", "error_detail", "spans",
    "faces_not_judged", "voice", "voice_probability", "speech_s", "overall",
    "credentials", "statement",
)  # fmt: skip
_TABLE_HEAD = ("VERDICT", "P(FAKE)", "95 % INTERVAL", "FACES", "VOICE", "MS", "FILE")
_TABLE_RIGHT = (False, True, False, True, False, True)


@dataclass(frozen=True)
class FileResult:
    """What became of one file: a report or an error, never both.

    Args:
        path: as it was found, relative if it was given so.
        ms: wall time spent on this file, milliseconds.
    """

    path: Path
    report: Report | None
    error: TelltaleError | None
    ms: float

    def __post_init__(self) -> None:
        if (self.report is None) == (self.error is None):
            raise ValueError("a result is either a report or an error")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: `file`, `ms`, `report` (`Report.to_dict`) and `error` (problem JSON); one is null."""
        return {
            "file": escape(str(self.path)),
            "ms": round(self.ms, 1),
            "report": None if self.report is None else _finite(self.report.to_dict()),
            "error": None if self.error is None else _finite(self.error.to_problem()),
        }


def verdict_word(result: FileResult) -> str:
    """`fake`, `real`, `inconclusive`, `no face`, `no speech`, or `error`."""
    return "error" if result.report is None else result.report.verdict.outcome.value.replace("_", " ")


def format_table(results: Sequence[FileResult]) -> str:
    """An aligned table with a row per file, the name last so that long names do not break the columns."""
    rows = [_TABLE_HEAD, *(_table_row(result) for result in results)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_TABLE_RIGHT))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, _TABLE_RIGHT, strict=False)
        ]
        lines.append("  ".join([*cells, row[-1]]))
    return "\n".join([*lines, "", summary_sentence(results), ""])


def _table_row(result: FileResult) -> tuple[str, ...]:
    name, ms = escape(str(result.path)), f"{result.ms:.0f}"
    if result.report is None:
        return "error", "-", "-", "-", "-", ms, f"{name}: {escape(str(result.error))}"
    verdict = result.report.verdict
    probability = "-" if verdict.probability is None else f"{verdict.probability:.2f}"
    interval = "-" if verdict.interval is None else "{:.2f} to {:.2f}".format(*verdict.interval)
    faces, judged = len(result.report.faces), sum(face.judged for face in result.report.faces)
    people = f"{judged} of {faces}" if judged < faces else str(faces)
    deciding, speech = result.report.deciding, result.report.speech
    times = ""
    if deciding and deciding.spans:
        from utils.detection.moments import format_spans  # loads NumPy, which --help does without

        times = f" ({format_spans(deciding.spans).lower()})"
    voice = "-" if speech is None else speech.verdict.outcome.value.replace("_", " ")
    said = result.report.provenance
    stated = f"  {escape(said.statement)}" if said and said.statement else ""
    return verdict_word(result), probability, interval, people, voice, ms, name + times + stated


def count_outcomes(results: Iterable[FileResult]) -> dict[str, int]:
    """How many files had each outcome: `files`, `fake`, `real`, `inconclusive`, `no_face`, `no_speech`, `error`."""
    counts = dict.fromkeys(("files", "fake", "real", "inconclusive", "no_face", "no_speech", "error"), 0)
    for result in results:
        counts["files"] += 1
        counts[verdict_word(result).replace(" ", "_")] += 1
    return counts


def summary_sentence(results: Sequence[FileResult]) -> str:
    """The counts in one line, such as `3 files: 1 fake, 2 real`."""
    counts = count_outcomes(results)
    total = counts.pop("files")
    counts["failed"] = counts.pop("error")
    parts = [f"{n} {name.replace('_', ' ')}" for name, n in counts.items() if n]
    return f"{total} {'file' if total == 1 else 'files'}: {', '.join(parts) or 'none analysed'}"


def format_json(results: Sequence[FileResult]) -> str:
    """One JSON document: `schema_version`, `summary` and `results`."""
    document = {
        "schema_version": JSON_SCHEMA_VERSION,
        "summary": count_outcomes(results),
        "results": [result.to_dict() for result in results],
    }
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def format_json_line(result: FileResult) -> str:
    """One entry of `results` as one line, with its newline."""
    return json.dumps(result.to_dict(), allow_nan=False) + "\n"


def format_csv(results: Sequence[FileResult]) -> str:
    """RFC 4180 with a header; columns are `CSV_COLUMNS`, empty where there is no value."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, CSV_COLUMNS, lineterminator="\r\n")
    writer.writeheader()
    for result in results:
        writer.writerow(_csv_row(result))
    return buffer.getvalue()


def _csv_row(result: FileResult) -> dict[str, Any]:
    name = escape(str(result.path))
    row: dict[str, Any] = {
        # A spreadsheet would run a name like `=cmd()`; `./=cmd()` is the same file and no formula.
        "file": f"./{name}" if name.startswith(FORMULA_STARTS) else name,
        "outcome": verdict_word(result).replace(" ", "_"),
        "ms": round(result.ms, 1),
    }
    if result.error is not None:
        return row | {"error_code": result.error.code, "error_detail": safe_cell(escape(result.error.detail))}
    if result.report is not None:
        report, media = result.report, result.report.media
        low, high = report.verdict.interval or (None, None)
        row |= {
            "fake_probability": report.verdict.probability, "interval_low": low, "interval_high": high,
            "faces": len(report.faces), "kind": media.kind.value, "format": media.format, "width": media.width,
            "height": media.height, "duration_s": media.duration_s, "threshold": report.threshold,
            "model_version": report.model_version, "sha256": media.sha256,
            "spans": " ".join(f"{s.start_s:g}-{s.end_s:g}" for s in (report.deciding.spans if report.deciding else ())),
            "faces_not_judged": sum(not face.judged for face in report.faces),
            "overall": None if report.overall is None else report.overall.outcome.value,
            "credentials": report.provenance and report.provenance.credentials.state.value,
            "statement": safe_cell(escape((report.provenance and report.provenance.statement) or "")),
        }  # fmt: skip
        if report.speech is not None:
            verdict = report.speech.verdict
            row |= {"voice": verdict.outcome.value, "voice_probability": verdict.probability}
            row["speech_s"] = round(report.speech.speech_s, 2)
    return row


def _finite(value: Any) -> Any:
    """The same JSON values with null for NaN and infinity, which JSON cannot hold, and safe text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value
