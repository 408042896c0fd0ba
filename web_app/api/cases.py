"""Cases: several analyses kept together with notes, one report for all of them, and an export to pass on."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import sqlalchemy as sa
from flask import Response, url_for
from pydantic import AfterValidator, Field
from sqlalchemy.orm import Session, joinedload

from utils.errors import ConflictError, NotFoundError
from web_app.api.reports import Document, ReportDocument, ReportQuery, SignatureModel, document_of, report_answer
from web_app.api.routing import HTML, PDF, ZIP, json_answer, route, streamed
from web_app.api.schemas import Links, Listed, Moment, Problem, Schema, StateName, address, job_error
from web_app.auth import identity
from web_app.db.models import CaseItemRow, CaseRow, DetectionRow, JobState, MediaRow
from web_app.feedback import votes
from web_app.reports.cases import build_case, export_lines
from web_app.services import require_detection, services

MOST_CASES, MOST_ITEMS = 200, 200
Title = Annotated[str, Field(min_length=1, max_length=200, pattern=r"\S"), AfterValidator(str.strip)]
Notes = Annotated[str, Field(max_length=10_000, description="plain text")]


class NewCase(Schema):
    title: Title
    notes: Notes = ""


class CaseChange(Schema):
    """What is left out stays."""

    title: Title | None = None
    notes: Notes | None = None


class ItemNote(Schema):
    note: str | None = Field(
        default=None, max_length=2_000, description="plain text about this file; left out, it stays as it is"
    )


class CaseEntry(Listed):
    """One analysis in a case."""

    note: str
    error: Problem | None


class CaseSummary(Schema):
    id: str
    title: str
    created: Moment
    count: int = Field(description="analyses in it")


class Cases(Schema):
    items: list[CaseSummary]


class Case(CaseSummary):
    notes: Notes
    items: list[CaseEntry] = Field(description="in the order in which they were added")


class CaseReportItem(Schema):
    """One file of a case's report."""

    name: str
    note: str
    state: StateName
    error: str | None = Field(default=None, description="code and sentence of why the analysis failed")
    report: ReportDocument | None = Field(description="unsigned, for the whole is signed; null without a result")


class CaseDocument(Document):
    """The report of a case, made to be kept, passed on and checked."""

    document: Literal["telltale-case"]
    title: str
    notes: str
    created: Moment
    items: list[CaseReportItem]
    signature: SignatureModel


class DeleteQuery(Schema):
    analyses: Literal["0", "1"] = Field(default="0", description="1 deletes the analyses and their files too")


@route("POST", "/cases", {201: Case}, ConflictError)
def create_case(said: NewCase, session: Session) -> Response:
    """Open a case; you may have 200."""
    owner = identity.caller().id
    mine = session.scalar(sa.select(sa.func.count()).where(CaseRow.client_id == owner)) or 0
    if mine >= MOST_CASES:
        raise ConflictError(f"You have {mine} cases, and no more than {MOST_CASES} are allowed.")
    row = CaseRow(client_id=owner, title=said.title, notes=said.notes)
    session.add(row)
    session.flush()
    return json_answer(_case(session, row), 201, location=address("get_case", id=row.public_id))


@route("GET", "/cases", {200: Cases})
def list_cases(session: Session) -> Cases:
    """Your cases, newest first; those of everybody for an administrator."""
    asking = identity.caller()
    count = sa.select(sa.func.count()).where(CaseItemRow.case_id == CaseRow.id).scalar_subquery()
    wanted = sa.select(CaseRow, count).where(asking.sees(CaseRow.client_id)).order_by(CaseRow.id.desc())
    return Cases(items=[CaseSummary.of(row, count=items) for row, items in session.execute(wanted)])


@route("GET", "/cases/<id>", {200: Case})
def get_case(id: str, session: Session) -> Case:
    """A case with its notes and analyses."""
    return _case(session, _own(session, id))


@route("PATCH", "/cases/<id>", {200: Case})
def change_case(id: str, said: CaseChange, session: Session) -> Case:
    """Change title or notes."""
    row = _own(session, id)
    for name, value in said.model_dump(exclude_none=True).items():
        setattr(row, name, value)
    return _case(session, row)


@route("DELETE", "/cases/<id>", {204: None})
def remove_case(id: str, query: DeleteQuery) -> None:
    """Delete a case with its notes; with `analyses=1` its analyses too, as if each were deleted by itself."""
    parts, asking = services(), identity.caller()
    with parts.database.read() as session:
        rows = [item.detection for item in _items(session, _own(session, id))]
        own = [row.job.public_id for row in rows if asking.owns(row.client_id)]
    for public_id in own if query.analyses == "1" else ():
        votes.delete_analysis(parts, public_id)
    with parts.database.write() as session:
        session.delete(_own(session, id))


@route("PUT", "/cases/<id>/items/<detection>", {200: Case}, ConflictError)
def put_case_item(id: str, detection: str, said: ItemNote, session: Session) -> Case:
    """Put one of your analyses into a case, or change the note on it; a case holds 200."""
    case, row = _own(session, id), require_detection(session, detection)
    if case.client_id not in (row.client_id, identity.caller().id):  # its owner would get to see it
        raise NotFoundError("There is no analysis with this id.")
    item = session.get(CaseItemRow, (case.id, row.job_id))
    if item is None:
        count = sa.select(sa.func.count()).where(CaseItemRow.case_id == case.id)
        if (session.scalar(count) or 0) >= MOST_ITEMS:
            raise ConflictError(f"A case holds no more than {MOST_ITEMS} analyses.")
        item = CaseItemRow(case_id=case.id, detection_id=row.job_id, note="")
        session.add(item)
    if said.note is not None:
        item.note = said.note
    session.flush()
    return _case(session, case)


@route("DELETE", "/cases/<id>/items/<detection>", {204: None})
def remove_case_item(id: str, detection: str, session: Session) -> None:
    """Take an analysis out of a case; the analysis stays."""
    items = _items(session, _own(session, id))
    found = next((item for item in items if item.detection.job.public_id == detection), None)
    if found is None:
        raise NotFoundError("There is no such analysis in this case.")
    session.delete(found)


@route("GET", "/cases/<id>/report", {200: (CaseDocument, HTML, PDF), 304: None})
def get_case_report(id: str, query: ReportQuery) -> Response:
    """One signed report for all files of a case: `format` is json, html or pdf; `download=1` names a file for it."""
    signed = services().report_keys.sign(_document(id)[0])
    return report_answer(signed, query, f"telltale-case-{id[:12]}", _page_url(id))


@route("GET", "/cases/<id>/export", {200: ZIP})
def export_case(id: str) -> Response:
    """A ZIP of a case: its report and those of its files, clean copies, `SHA256SUMS` and a signed `manifest.json`."""
    parts = services()
    lines = export_lines(*_document(id), parts.store, parts.report_keys.sign, _page_url(id))
    return streamed(lines, ZIP, f"telltale-case-{id[:12]}.zip")


def _page_url(id: str) -> str:
    return url_for("pages.case", case_id=id, _external=True)


def _document(id: str) -> tuple[dict[str, Any], list[MediaRow]]:
    """The unsigned report of a case, and the medium of each of its items."""
    with services().database.read() as session:
        case = _own(session, id)
        rows = [(item.note, item.detection) for item in _items(session, case, reports=True)]
        items = [
            {
                "name": row.display_name, "note": note, "state": row.job.state,
                "error": str(job_error(row.job)) if row.job.state == JobState.FAILED else None,
                "report": document_of(row) if row.job.state == JobState.DONE else None,
            }
            for note, row in rows
        ]  # fmt: skip
        return build_case(case, items), [row.media for _, row in rows]


def _own(session: Session, id: str) -> CaseRow:
    return identity.require_own(session, CaseRow, id, "case")


def _case(session: Session, row: CaseRow) -> Case:
    rows = [(item, item.detection) for item in _items(session, row)]
    items = [
        CaseEntry.of(item, of, of.job, of.media, error=Problem.of_job(of.job), links=Links.to(of.job.public_id))
        for item, of in rows
    ]
    return Case.of(row, count=len(items), notes=row.notes, items=items)


def _items(session: Session, row: CaseRow, *, reports: bool = False) -> list[CaseItemRow]:
    """The analyses of a case in their order, with their reports, which may be large, where they are asked for."""
    wanted = sa.select(CaseItemRow).where(CaseItemRow.case_id == row.id)
    if not reports:
        wanted = wanted.options(joinedload(CaseItemRow.detection).defer(DetectionRow.report))
    return list(session.scalars(wanted.order_by(CaseItemRow.added_at, CaseItemRow.detection_id)))
