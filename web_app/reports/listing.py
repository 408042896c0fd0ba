"""Many analyses as comma-separated values, one row each, written while they are read."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any

from utils.log import escape, safe_cell
from web_app import VERSION
from web_app.db.models import DetectionRow
from web_app.reports.document import SHORT_LIMITS

COLUMNS = (
    "id", "name", "state", "outcome", "fake_probability", "interval_low", "interval_high", "faces", "kind", "format",
    "width", "height", "duration_s", "size_bytes", "sha256", "model_version", "model_sha256", "telltale_version",
    "settings", "created", "finished", "error_code", "limits", "voice", "voice_probability", "overall",
)  # fmt: skip


def csv_lines(rows: Iterable[DetectionRow]) -> Iterator[str]:
    """RFC 4180 with a header; columns are `COLUMNS`, empty where there is no value."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\r\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(value) for name, value in csv_row(row).items()})
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
    yield buffer.getvalue()


def csv_row(row: DetectionRow) -> dict[str, Any]:
    """The values of one row, by column."""
    values: dict[str, Any] = {
        "id": row.job.public_id, "name": row.display_name, "state": row.job.state, "kind": row.media.kind,
        "format": row.media.format, "size_bytes": row.media.size_bytes, "sha256": row.media.sha256,
        "telltale_version": VERSION, "created": row.job.created_at.isoformat(),
        "finished": row.job.finished_at.isoformat() if row.job.finished_at else None,
        "error_code": row.job.error_code, "limits": SHORT_LIMITS,
    }  # fmt: skip
    report = row.report
    if report is not None:
        low, high = report["verdict"]["interval"] or (None, None)
        media = report["media"]
        values |= {
            "outcome": row.prediction, "fake_probability": row.fake_probability, "interval_low": low,
            "interval_high": high, "faces": len(report["faces"]), "width": media["width"], "height": media["height"],
            "duration_s": media["duration_s"], "model_version": row.model_version,
            "model_sha256": report["model_sha256"],
            "settings": "; ".join(f"{name}={value}" for name, value in report.get("settings", {}).items()),
        }  # fmt: skip
        if speech := report.get("speech"):
            values |= {"voice": speech["verdict"]["outcome"], "voice_probability": speech["verdict"]["probability"]}
        if overall := report.get("overall"):
            values["overall"] = overall["outcome"]
    return values


def _cell(value: Any) -> Any:
    return safe_cell(escape(value)) if isinstance(value, str) else value
