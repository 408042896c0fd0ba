"""What a command line means and shows: paths, folders and glob patterns become a list of files, before any of them is
analysed, and results of many files a table, CSV, JSON or JSON Lines.

Names of files are not trusted: they may hold control characters, bytes that are no text, or a spreadsheet formula.
"""

from __future__ import annotations

import csv
import glob
import io
import json
import math
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.errors import MediaUnreadableError, TelltaleError
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


@dataclass(frozen=True)
class Collected:
    """The files that a command line means, in order and without repeats, what is missing, and what was passed over."""

    files: tuple[Path, ...]
    missing: tuple[FileResult, ...]
    passed_over: int


def collect_files(arguments: Sequence[str], *, recursive: bool = True) -> Collected:
    """Expand files, folders and glob patterns.

    A folder gives its media files in the order of their names: files with the suffix of a format that we read. Hidden
    files are left out and links to folders are not followed. A file that is named itself is taken whatever its suffix.

    Args:
        arguments: paths or patterns (`*`, `?`, `[...]`, `**`); a path that exists is never read as a pattern.

    Returns:
        The files; arguments that lead to nothing are `missing` with a `MediaUnreadableError` each.
    """
    files: dict[str, Path] = {}
    missing: list[FileResult] = []
    passed_over = 0
    for argument in arguments:
        matches = _matches(argument)
        if not matches:
            missing.append(_unreadable(Path(argument), "No file has this name or matches this pattern."))
        for path in matches:
            inside, others, unreadable = _expand(path, recursive=recursive)
            for file in inside:
                files.setdefault(os.path.realpath(file), file)
            missing += unreadable
            passed_over += others
    return Collected(tuple(files.values()), tuple(missing), passed_over)


def _matches(argument: str) -> list[Path]:
    path = Path(argument)
    try:
        if os.path.lexists(path):
            return [path]
    except ValueError:  # a NUL byte inside
        return []
    if not glob.has_magic(argument):
        return []
    return [Path(match) for match in sorted(glob.glob(argument, recursive=True))]  # noqa: PTH207 (absolute patterns)


def _expand(path: Path, *, recursive: bool) -> tuple[list[Path], int, list[FileResult]]:
    """The media files of a folder, how many others it holds and what could not be read; a file stands for itself."""
    if not os.path.isdir(path):  # noqa: PTH112 (Path.is_dir raises where we lack permission)
        return [path], 0, []
    from utils.media.sniff import SUFFIXES  # loads NumPy, which --help does without

    known = frozenset().union(*SUFFIXES.values())
    inside: list[Path] = []
    others = 0
    unreadable: list[FileResult] = []

    def note(error: OSError) -> None:
        unreadable.append(_unreadable(Path(error.filename), f"The folder cannot be read: {error.strerror}."))

    for root, folders, names in os.walk(path, onerror=note):
        folders[:] = sorted(f for f in folders if not f.startswith(".")) if recursive else []
        for name in sorted(n for n in names if not n.startswith(".")):
            if Path(name).suffix.lower() in known:
                inside.append(Path(root) / name)
            else:
                others += 1
    if not inside and not unreadable:
        unreadable.append(_unreadable(path, "The folder holds no picture, video or recording that we can read."))
    return inside, others, unreadable


def _unreadable(path: Path, detail: str) -> FileResult:
    return FileResult(path, None, MediaUnreadableError(detail), 0.0)


def check_readable(path: Path) -> None:
    """Make sure that a path is a plain file we may read, before anything waits on a pipe or a device.

    Raises:
        MediaUnreadableError: it does not exist, is a folder, a device or a pipe, or may not be read.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise MediaUnreadableError(f"{escape(str(path))} is not a plain file.")
        with path.open("rb"):
            pass
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise MediaUnreadableError(f"{escape(str(path))} cannot be opened: {reason}.") from error
