"""Close-ups of one face, their heatmaps, thumbnails and frames; what they are made of is computed by the worker.

A close-up is a job of the task `explain`, kept with the analysis and deleted with it. Its result holds the heatmaps as
small grey-level PNGs and what became of the verdict under changes; no picture of the person is in it.
"""

from __future__ import annotations

import base64
from typing import Literal

import sqlalchemy as sa
from flask import Response, current_app, send_file
from pydantic import Field
from sqlalchemy.orm import Session

from utils.errors import ConflictError, NotAvailableError, NotFoundError, QueueFullError, require_torch
from web_app.api.routing import JPEG, PNG, conditional, route
from web_app.api.schemas import OutcomeName, Probability, Problem, Schema, StateName, address
from web_app.auth import identity
from web_app.db.models import EXPLAIN, CloseupRow, DetectionRow, JobRow, JobState
from web_app.services import require_detection, services
from web_app.storage.files import FRAMES_SUFFIX, THUMBNAIL_MIME, THUMBNAIL_SUFFIX

MAX_FACE = 1000
ADD_TORCH = "Stop the server and start it with `make run` (without SERVE=1), which adds PyTorch."
CACHE = "private, max-age=300"  # then asked for again by its ETag: a file that is analysed anew gets new ones


class FaceQuery(Schema):
    face: int = Field(ge=0, le=MAX_FACE, description="id of the face in the report")


class HeatmapQuery(FaceQuery):
    expert: str = Field(min_length=1, max_length=32, description="`cnn`, `resnext` or `vit`")


class MapModel(Schema):
    """Where one expert sees signs of manipulation, and whether the map marks what matters to it."""

    expert: str
    title: str
    method: str
    heatmap: str | None = Field(description="address of a small grey-level PNG; null when nothing raised the suspicion")
    gain: float = Field(description="logit with the marked places kept, less the logit with them blurred away")
    random_gain: float = Field(description="mean of the same over the same map at random places")
    beaten: int = Field(ge=0, description="random masks that the map beats")
    masks: int = Field(ge=1, description="random masks tried")
    faithful: bool = Field(description="the map beats every random mask")


class TrialModel(Schema):
    """The verdict under one change of the medium; the first trial is the medium as it is."""

    code: str
    title: str
    outcome: OutcomeName
    probability: Probability
    flipped: bool = Field(description="another outcome than without the change")


class LipsModel(Schema):
    """Whether a person's lips fit the sound of a clip; evidence that no verdict depends on."""

    code: Literal["fits", "does_not_fit", "undecided", "not_measured"]
    text: str = Field(description="the same in a sentence")
    correlation: float | None = Field(description="of lips and loudness, -1 to 1; null when nothing was measured")
    lag_s: float | None = Field(description="how much later the lips move than the sound, seconds")
    spans: list[list[float]] = Field(description="first and last second of each part that was compared")


class CloseupResult(Schema):
    face: int
    frame: int = Field(description="frame that the maps belong to, as in the report's `frames`")
    time_s: float
    square: list[float] = Field(min_length=4, max_length=4, description="what the maps cover: x0, y0, x1, y1 in pixels")
    model_version: str
    maps: list[MapModel]
    trials: list[TrialModel]
    lips: LipsModel | None = Field(default=None, description="null when there is no sound")


class Closeup(Schema):
    """A closer look at one face: its state, and once done what it gave."""

    face: int
    state: StateName | None = Field(description="null when nobody has asked for it")
    stage: str | None
    fraction: float = Field(ge=0.0, le=1.0)
    position: int | None = Field(description="jobs ahead of it; null when it does not wait")
    error: Problem | None
    result: CloseupResult | None


class FrameModel(Schema):
    """One frame of a video that was analysed."""

    time_s: float = Field(ge=0, description="seconds from the first frame")
    jpeg: str = Field(description="a small JPEG, base64")


class Frames(Schema):
    frames: list[FrameModel]
    waveform: list[float] = Field(
        default_factory=list, description="loudest sample of each of as many equal parts of the sound, 0 to 1"
    )


@route("POST", "/detections/<id>/closeup", {202: Closeup}, ConflictError, NotAvailableError, QueueFullError)
def ask_closeup(id: str, query: FaceQuery, session: Session) -> Closeup:
    """Ask for a closer look at one face; answered at once, `GET` tells how far it is. Asking again changes nothing."""
    parts = services()
    row, known = _of_face(session, id, query.face)
    if known is not None and known.job.state not in (JobState.FAILED, JobState.CANCELLED):
        return _closeup(session, id, known)
    if parts.settings.page.closeups != "on":
        raise NotAvailableError("Close-ups are switched off on this server ([page] closeups).")
    require_torch("A closer look with its heatmaps", ADD_TORCH)
    parts.queue.require_room(session)
    if known is not None:
        session.execute(sa.delete(JobRow).where(JobRow.id == known.job_id))
        session.expunge(known)
    job = parts.queue.open(session, EXPLAIN, {"detection": id, "face": query.face})
    closeup = CloseupRow(job_id=job.id, detection_id=row.job_id, face=query.face, job=job)
    session.add(closeup)
    session.flush()
    return _closeup(session, id, closeup)


@route("GET", "/detections/<id>/closeup", {200: Closeup}, ConflictError)
def get_closeup(id: str, query: FaceQuery, session: Session) -> Closeup:
    """How far the closer look at one face is, and what it gave; the state is null before somebody has asked."""
    _, closeup = _of_face(session, id, query.face)
    nothing = Closeup(face=query.face, state=None, stage=None, fraction=0.0, position=None, error=None, result=None)
    return nothing if closeup is None else _closeup(session, id, closeup)


@route("GET", "/detections/<id>/heatmap", {200: PNG, 304: None})
def get_heatmap(id: str, query: HeatmapQuery, session: Session) -> Response:
    """Where one expert sees signs of manipulation: a small grey-level PNG over the square that the close-up names."""
    closeup = _find(session, require_detection(session, id), query.face)
    if closeup is None:
        raise NotFoundError(
            "No heatmap was made.",
            remedy=f"Ask for the closer look first (POST {address('ask_closeup', id=id, face=query.face)}).",
        )
    maps = (closeup.job.result or {}).get("maps", [])
    png = next((found["png"] for found in maps if found["expert"] == query.expert), None)
    if not png:
        raise NotFoundError("There is no heatmap of this face by this expert.")
    return _picture(conditional(current_app.response_class(base64.b64decode(png), mimetype=PNG)))


@route("GET", "/detections/<id>/thumbnail", {200: JPEG, 304: None})
def get_thumbnail(id: str) -> Response:
    """A small picture of the medium, made of its decoded pixels: nothing else of the upload is in it."""
    return _made_beside(id, THUMBNAIL_SUFFIX, THUMBNAIL_MIME, "There is no thumbnail of this medium.")


@route("GET", "/detections/<id>/frames", {200: Frames, 304: None})
def get_frames(id: str) -> Response:
    """The analysed frames of a video as small JPEGs with their times, for players that cannot show the video."""
    return _made_beside(id, FRAMES_SUFFIX, "application/json", "There are no frames of this medium.")


def _made_beside(id: str, suffix: str, mimetype: str, missing: str) -> Response:
    with services().database.read() as session:
        path = services().store.path(require_detection(session, id).media.stored_name, suffix)
    if not path.is_file():
        raise NotFoundError(missing)
    return _picture(send_file(path, mimetype=mimetype, conditional=True))


def _picture(answer: Response) -> Response:
    answer.headers["Content-Security-Policy"] = identity.MEDIA_POLICY
    answer.headers["Cache-Control"] = CACHE
    return answer


def _of_face(session: Session, public_id: str, face: int) -> tuple[DetectionRow, CloseupRow | None]:
    row = require_detection(session, public_id, done=True)
    if face not in {found["id"] for found in (row.report or {}).get("faces", [])}:
        raise NotFoundError(f"The analysis has no face {face}.")
    return row, _find(session, row, face)


def _find(session: Session, row: DetectionRow, face: int) -> CloseupRow | None:
    return session.scalar(sa.select(CloseupRow).where(CloseupRow.detection_id == row.job_id, CloseupRow.face == face))


def _closeup(session: Session, public_id: str, row: CloseupRow) -> Closeup:
    return Closeup.of(
        row.job,
        face=row.face,
        position=services().queue.ahead(session, row.job),
        error=Problem.of_job(row.job),
        result=_result(public_id, row) if row.job.state == JobState.DONE else None,
    )


def _result(public_id: str, row: CloseupRow) -> CloseupResult:
    """What the worker found, with the address of each map in the place of the map."""
    stored = dict(row.job.result or {})
    maps = [dict(found) for found in stored["maps"]]
    for found in maps:
        drawn = found.pop("png") is not None
        at = address("get_heatmap", id=public_id, face=row.face, expert=found["expert"])
        found["heatmap"] = at if drawn else None
    return CloseupResult.model_validate(stored | {"maps": maps})
