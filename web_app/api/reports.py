"""Reports of analyses: one as JSON, HTML or PDF, the history as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import sqlalchemy as sa
from flask import Response, current_app, url_for
from pydantic import Field

from utils.errors import ConflictError
from utils.log import escape, safe_cell
from utils.signatures import canonical
from utils.types import MediaKind
from web_app import VERSION
from web_app.api.detections import HistoryFilter, by_ids, matching
from web_app.api.routing import CSV, DOCUMENT, HTML, PDF, conditional, route, streamed
from web_app.api.schemas import Result, Schema
from web_app.auth import identity
from web_app.db.models import DetectionRow, JobRow
from web_app.reports.document import SHORT_LIMITS, build_document
from web_app.reports.printed import render_html, render_pdf
from web_app.services import Services, require_detection, services

ROWS_AT_A_TIME = 500
COLUMNS = (
    "id", "name", "state", "outcome", "fake_probability", "interval_low", "interval_high", "faces", "kind", "format",
    "width", "height", "duration_s", "size_bytes", "sha256", "model_version", "model_sha256", "telltale_version",
    "settings", "created", "finished", "error_code", "limits", "voice", "voice_probability", "overall",
    "speech_version",
)  # fmt: skip


class ModelFacts(Schema):
    """Which networks answered."""

    version: str
    sha256: str = Field(min_length=64, max_length=64, description="of the version's list of checksums")


class SignatureModel(Schema):
    """An Ed25519 signature over the canonical JSON of the document, its own `value` left out."""

    algorithm: Literal["Ed25519"]
    canonical: Literal["RFC 8785"]
    key: str = Field(description="fingerprint: SHA-256 of the public key, 64 hexadecimal digits")
    public_key: str = Field(description="32 bytes, base64; proves only that the document is whole")
    value: str = Field(description="64 bytes, base64")


class Document(Schema):
    """What documents that are made to be kept, passed on and checked have in common."""

    document_version: Literal[1]
    telltale_version: str = Field(description="of the program that wrote the document")
    id: str
    analysed: str = Field(
        description="end of the last analysis, ISO 8601, UTC; of a case without a result, when it was opened"
    )
    limits: list[str] = Field(description="what the method cannot say")
    reproduce: str = Field(description="the command that replays an analysis")


class ReportDocument(Document):
    """The report of one analysis, made to be kept, passed on and checked."""

    document: Literal["telltale-report"]
    name: str = Field(description="of the file, as it was given")
    sha256: str = Field(min_length=64, max_length=64, description="of the input file")
    model: ModelFacts
    settings: dict[str, float | str] = Field(description="that the score depends on, by their names in config.ini")
    analysis: Result
    signature: SignatureModel | None = Field(default=None, description="absent in old reports")


class ReportQuery(Schema):
    format: Literal["json", "html", "pdf"] = "json"
    download: Literal["0", "1"] = Field(default="0", description="1 makes browsers save it")


class CsvQuery(HistoryFilter):
    ids: str | None = Field(default=None, min_length=1, max_length=8000, description="of analyses, separated by commas")


@route("GET", "/detections/<id>/report", {200: (ReportDocument, HTML, PDF), 304: None}, ConflictError)
def get_report(id: str, query: ReportQuery) -> Response:
    """The report of a finished analysis to keep: `format` is json, html or pdf; `download=1` names a file for it.

    The JSON form follows docs/report.schema.json, is canonical (RFC 8785) and signed, and `inference.py --verify`
    checks and replays it. The same analysis gives the same bytes each time, until the server's key is replaced.
    """
    parts = services()
    with parts.database.read() as session:
        row = require_detection(session, id, done=True)
        document = parts.report_keys.sign(document_of(row))
        has_picture = row.media.kind == MediaKind.IMAGE and parts.store.size(row.media.stored_name) is not None
    page_url = url_for("pages.detection", detection_id=id, _external=True)
    media_url = url_for("api.get_media", id=id) if has_picture else None
    return report_answer(document, query, f"telltale-{id[:12]}", page_url, media_url)


def document_of(row: DetectionRow) -> dict[str, Any]:
    """The unsigned report of a finished analysis."""
    analysed = row.job.finished_at.isoformat() if row.job.finished_at else ""
    return build_document(Result.stored(row).plain(), row.display_name, analysed)


def report_answer(
    document: dict[str, Any], query: ReportQuery, name: str, page_url: str, media_url: str | None = None
) -> Response:
    """A signed document in the form that is asked for, under a name to save it by; see `render_html`."""
    if query.format == "json":
        content, mimetype = canonical(document), DOCUMENT
    else:
        page = render_html(document, media_url, page_url)
        content, mimetype = page.encode(), HTML
        if query.format == "pdf":
            content, mimetype = render_pdf(page, f"Telltale report {document['id']}", page_url), PDF
    answer = current_app.response_class(content, mimetype=mimetype)
    disposition = "attachment" if query.download == "1" else "inline"
    answer.headers["Content-Disposition"] = f'{disposition}; filename="{name}.{query.format}"'
    return conditional(answer)


@route("GET", "/history.csv", {200: CSV})
def get_history_csv(query: CsvQuery) -> Response:
    """Your analyses as comma-separated values, newest first: all that the filters or `ids` choose."""
    return streamed(csv_lines(_rows(services(), query, identity.caller())), CSV, "telltale-history.csv")


def _rows(parts: Services, query: CsvQuery, asking: identity.Caller) -> Iterator[DetectionRow]:
    """Rows in portions, each in a short session, so that a slow reader holds nothing open."""
    before = None
    while True:
        with parts.database.read() as session:
            wanted = matching(session, query, asking).limit(ROWS_AT_A_TIME)
            if query.ids is not None:
                chosen = [part.strip() for part in query.ids.split(",") if part.strip()]
                jobs = sa.select(JobRow.id).where(JobRow.public_id.in_(chosen))
                wanted = wanted.where(DetectionRow.job_id.in_(jobs))
            if before is not None:
                wanted = wanted.where(DetectionRow.job_id < before)
            ids = session.scalars(wanted).all()
            rows = session.scalars(by_ids(ids)).all()  # fewer, where one was deleted a moment ago
        yield from rows
        if len(ids) < ROWS_AT_A_TIME:
            return
        before = ids[-1]


def csv_lines(rows: Iterable[DetectionRow]) -> Iterator[str]:
    """RFC 4180 with a header; columns are `COLUMNS`, empty where there is no value."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\r\n")
    writer.writeheader()
    for row in rows:
        values = csv_row(row).items()
        writer.writerow({name: safe_cell(escape(each)) if isinstance(each, str) else each for name, each in values})
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
    yield buffer.getvalue()


def csv_row(row: DetectionRow) -> dict[str, Any]:
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
            values["speech_version"] = speech["model_version"]
        if overall := report.get("overall"):
            values["overall"] = overall["outcome"]
    return values
