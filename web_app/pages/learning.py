"""The pages of the learning: how it goes, and the review of feedback."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, abort, render_template
from sqlalchemy.exc import OperationalError

from utils.errors import UnauthorizedError
from web_app.auth.identity import caller
from web_app.feedback.corrections import count_corrections, list_corrections
from web_app.feedback.stats import learning_stats
from web_app.feedback.versions import list_versions
from web_app.pages.plot import golden_plot
from web_app.services import services

REVIEW_STATES = (
    "waiting", "contradiction", "accepted", "duplicate", "quota", "out_of_domain", "rejected", "all",
)  # fmt: skip
SHOWN = 50
"""Corrections on the page, those that are lost first; the API has all."""


def add_learning_pages(blueprint: Blueprint) -> None:
    """Add the two pages to the pages' blueprint, and to every template whether the reader may moderate."""
    blueprint.add_url_rule("/learning", view_func=learning)
    blueprint.add_url_rule("/review", view_func=review)
    blueprint.app_context_processor(rights)


def rights() -> dict[str, bool]:
    """What the reader may do, so that a page offers nothing else; the API checks it again."""
    try:
        scopes = caller().scopes
    except (UnauthorizedError, OperationalError):  # the sign-in form; a page that says why
        scopes = frozenset()
    return {"may_moderate": "moderate" in scopes, "may_administer": "admin" in scopes}


def learning() -> str:
    """Model learning progress: what users said, what was learned, and how the golden set judged each version."""
    parts = services()
    stats: dict[str, Any] = learning_stats(parts.settings, parts.database)
    versions = list_versions(parts.settings, parts.database)
    with parts.database.read() as session:
        corrections = list_corrections(session)
    return render_template(
        "learning.html",
        stats=stats,
        versions=versions,
        corrections=[(each.row, each) for each in corrections[:SHOWN]],
        counts=count_corrections(corrections),
        plot=golden_plot(stats["golden"]),
        rules=parts.settings.learning,
    )


def review() -> str:
    """What waits for a moderator; readers without that right are told so."""
    if not rights()["may_moderate"]:
        abort(403)
    return render_template("review.html", states=REVIEW_STATES)
