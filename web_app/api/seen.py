"""Whether a medium was seen before: analyses of the caller's whose pictures or faces look the same."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import sqlalchemy as sa
from pydantic import Field
from sqlalchemy.orm import Session

from utils.errors import ConflictError
from web_app.api.routing import route
from web_app.api.schemas import Links, Moment, OutcomeName, Probability, Schema
from web_app.auth import identity
from web_app.db.models import DetectionRow, FeedbackRow, JobRow, JobState, MediaRow, PictureHashRow, ReviewedMediumRow
from web_app.feedback import votes
from web_app.services import require_detection, services

MOST_APART = 8  # bits of 64 in which looks that are called alike may differ; its rates stand in docs/api.md
FRAMES_ALIKE = 2  # of the three of a video
MOST_SHOWN = 20

How = Literal["file", "picture", "face"]


class SeenItem(Schema):
    """An earlier analysis of something that looks the same."""

    id: str
    name: str
    created: Moment
    how: How = Field(description="the very same file, the whole picture or clip looks the same, or a face in it does")
    distance: int = Field(ge=0, le=64, description="bits of 64 in which the looks differ; 0 for the same file")
    face: int | None = Field(description="number of the face here; null but for `face`")
    other_face: int | None = Field(description="its number there")
    prediction: OutcomeName
    overall: OutcomeName | None = Field(description="of faces and voice together; null but for videos with both")
    fake_probability: Probability | None
    model_version: str
    actual: Literal["real", "fake"] | None = Field(description="what you said that it really is")
    decided: Literal["real", "fake"] | None = Field(description="what a moderator decided that it really is")
    links: Links


class Seen(Schema):
    items: list[SeenItem] = Field(description="the most alike first, 20 at most")


class Likeness(NamedTuple):
    """How two media are alike; the first of several is the smallest."""

    rank: int
    distance: int
    how: How
    face: int | None = None
    other_face: int | None = None


@route("GET", "/detections/<id>/seen", {200: Seen}, ConflictError)
def get_seen(id: str, session: Session) -> Seen:
    """Your other analyses of the same file, of near copies of it, and of pictures with the same picture of a face.

    An administrator sees those of everybody. Faces of the same person in other pictures are not meant and not found.
    """
    asking = identity.caller()
    row = require_detection(session, id, done=True)
    kept = sa.and_(DetectionRow.expires_at.is_(None), JobRow.state == JobState.DONE)
    visible = sa.and_(DetectionRow.job_id != row.job_id, kept, asking.sees(DetectionRow.client_id))
    alike = {row.media_id: Likeness(0, 0, "file")}
    if services().settings.storage.seen_before == "on":
        alike |= _alike(session, row.media_id)
    wanted = sa.select(DetectionRow.job_id, DetectionRow.media_id).join(DetectionRow.job).join(DetectionRow.media)
    wanted = wanted.where(visible, DetectionRow.media_id.in_(alike), MediaRow.kind == row.media.kind)
    found = session.execute(wanted.order_by(JobRow.id.desc())).all()
    shown = [job_id for job_id, _ in sorted(found, key=lambda each: alike[each.media_id][:2])[:MOST_SHOWN]]
    rows = session.scalars(sa.select(DetectionRow).where(DetectionRow.job_id.in_(shown))).all()
    rows = sorted(rows, key=lambda each: shown.index(each.job_id))
    own = votes.find_votes(session, {each.media.sha256 for each in rows}, asking.id)
    return Seen(items=[_item(session, each, alike[each.media_id], own.get(each.media.sha256)) for each in rows])


def _item(session: Session, row: DetectionRow, alike: Likeness, vote: FeedbackRow | None) -> SeenItem:
    reviewed = session.get(ReviewedMediumRow, row.media.sha256)
    return SeenItem.of(
        alike, row, row.job,
        actual=vote and vote.actual, decided=reviewed and reviewed.decision_label, links=Links.to(row.job.public_id),
    )  # fmt: skip


def _alike(session: Session, media_id: int) -> dict[int, Likeness]:
    """Other media that look like this one, whoever's and of whatever kind."""
    columns = (PictureHashRow.media_id, PictureHashRow.part, PictureHashRow.number, PictureHashRow.look)
    own = session.execute(sa.select(*columns).where(PictureHashRow.media_id == media_id)).all()
    rows = session.execute(sa.select(*columns).where(PictureHashRow.media_id != media_id)).all() if own else []
    looks = np.array([int(row.look, 16) for row in rows], np.uint64)
    found: dict[int, list[Likeness]] = {}
    frames: dict[int, list[int]] = {}
    needed = min(FRAMES_ALIKE, sum(mine.part == PictureHashRow.WHOLE for mine in own))
    for mine in own:
        apart = np.bitwise_count(looks ^ np.uint64(int(mine.look, 16)))
        for at in np.flatnonzero(apart <= MOST_APART):
            other, distance = rows[int(at)], int(apart[at])
            if mine.part == other.part == PictureHashRow.FACE:
                likeness = Likeness(2, distance, "face", mine.number, other.number)
                found.setdefault(other.media_id, []).append(likeness)
            elif mine.part == other.part == PictureHashRow.WHOLE and mine.number == other.number:
                frames.setdefault(other.media_id, []).append(distance)
    for media_id, distances in frames.items():
        if len(distances) >= needed:
            found.setdefault(media_id, []).append(Likeness(1, sorted(distances)[len(distances) // 2], "picture"))
    return {media_id: min(each, key=lambda one: one[:2]) for media_id, each in found.items()}
