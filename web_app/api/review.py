"""The review of feedback: what waits, contradicts or was refused, and a moderator's word about it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from flask import Response, jsonify, request, url_for
from sqlalchemy.orm import Session

from utils.errors import FeedbackError, NotFoundError
from utils.feedback.feedback_log import DecisionEntry
from web_app.api import present
from web_app.api.learning_schemas import DecisionRequest, ReviewQuery
from web_app.api.parse import parse_json, parse_query
from web_app.auth import identity
from web_app.db.models import FeedbackRow, MediaRow, ReviewedMediumRow, utc_now
from web_app.feedback.stats import count_states
from web_app.feedback.votes import decide
from web_app.services import services
from web_app.storage.media import hand_out


def get_review() -> Response:
    """Media that users gave feedback on, the latest voice first; `state` chooses those with such a voice."""
    parts = services()
    query = parse_query(ReviewQuery, request.args)
    wanted = sa.select(FeedbackRow.media_sha256).group_by(FeedbackRow.media_sha256)
    if query.state != "all":
        wanted = wanted.where(FeedbackRow.state == query.state)
    page = (
        wanted.order_by(sa.func.max(FeedbackRow.created_at).desc(), FeedbackRow.media_sha256)
        .offset((query.page - 1) * query.per_page)
        .limit(query.per_page)
    )
    with parts.database.read() as session:
        total = session.scalar(sa.select(sa.func.count()).select_from(wanted.subquery())) or 0
        items = _cases(session, session.scalars(page).all())
        counts = count_states(session)
    return jsonify(items=items, page=query.page, per_page=query.per_page, total=total, counts=counts)


def decide_case(sha256: str) -> Response:
    """Accept one label for a medium, or reject one label or all; the worker judges by it in its next idle moment."""
    parts = services()
    said = parse_json(DecisionRequest, request)
    with parts.database.read() as session:
        labels = set(session.scalars(sa.select(FeedbackRow.actual).where(FeedbackRow.media_sha256 == sha256)))
    if not labels:
        raise NotFoundError("Nobody has given feedback on this medium.")
    if said.label is None and said.decision == "accept":
        raise FeedbackError("Say which label is accepted: real or fake.")
    if said.label is not None and said.label not in labels:
        raise FeedbackError(f"Nobody called this medium {said.label}.")
    decide(
        parts.database,
        parts.paths,
        DecisionEntry(
            time=utc_now(),
            media_sha256=sha256,
            moderator_id=identity.caller().id,
            decision=said.decision,
            label=said.label,
            note=said.note,
        ),
    )
    with parts.database.read() as session:
        return jsonify(_cases(session, [sha256])[0])


def get_case_media(sha256: str) -> Response:
    """The file that feedback was given on, without its metadata, for moderators; ranges are served."""
    parts = services()
    with parts.database.read() as session:
        spoken = session.scalar(sa.select(FeedbackRow.id).where(FeedbackRow.media_sha256 == sha256).limit(1))
        media = session.scalar(sa.select(MediaRow).where(MediaRow.sha256 == sha256))
    if spoken is None or media is None or not parts.store.path(media.stored_name).is_file():
        raise NotFoundError("There is no file that feedback was given on under this address.")
    return hand_out(parts.store.path(media.stored_name), media, parts.readers)


def _cases(session: Session, media: Sequence[str]) -> list[dict[str, Any]]:
    rows = session.scalars(
        sa.select(FeedbackRow)
        .where(FeedbackRow.media_sha256.in_(media))
        .order_by(FeedbackRow.created_at, FeedbackRow.id)
    )
    voices: dict[str, list[FeedbackRow]] = defaultdict(list)
    for row in rows:
        voices[row.media_sha256].append(row)
    reviewed = {
        row.media_sha256: row
        for row in session.scalars(sa.select(ReviewedMediumRow).where(ReviewedMediumRow.media_sha256.in_(media)))
    }
    stored = {row.sha256: row for row in session.scalars(sa.select(MediaRow).where(MediaRow.sha256.in_(media)))}
    return [_case(sha256, voices[sha256], reviewed.get(sha256), stored.get(sha256)) for sha256 in media]


def _case(
    sha256: str, voices: Sequence[FeedbackRow], reviewed: ReviewedMediumRow | None, stored: MediaRow | None
) -> dict[str, Any]:
    decision = None
    if reviewed is not None and reviewed.decision is not None:
        decision = {
            "decision": reviewed.decision,
            "label": reviewed.decision_label,
            "note": reviewed.decision_note,
            "decided": present.moment(reviewed.decided_at),
        }
    return {
        "media_sha256": sha256,
        "kind": None if stored is None else stored.kind,
        "media": None if stored is None else url_for("api.get_case_media", sha256=sha256),
        "votes": [_vote(number, voice) for number, voice in enumerate(voices, start=1)],
        "decision": decision,
        "learnable": None if reviewed is None else reviewed.domain_reason,
    }


def _vote(number: int, voice: FeedbackRow) -> dict[str, Any]:
    """A voice without its owner's id, which opens what belongs to them where keys are off."""
    plain = present.feedback("", voice)
    del plain["id"]
    return {
        **plain,
        "user": number,
        "trusted": voice.trusted,
        "prediction": voice.prediction,
        "fake_probability": voice.fake_probability,
        "model_version": voice.model_version,
    }
