"""The pages people see: upload and result, live camera, history, one detection, the model, and the learning.

They are shells; the modules in `static/js` fill them from the REST API, so that page and API never tell two stories.
"""

from __future__ import annotations

from flask import Blueprint, abort, make_response, redirect, render_template, url_for
from sqlalchemy.exc import OperationalError
from werkzeug.wrappers import Response

from utils.errors import UnauthorizedError
from utils.media.sniff import SUFFIXES, titles
from utils.types import MediaKind
from web_app.auth.identity import HEADERS, caller, require_own
from web_app.db.models import CaseRow
from web_app.feedback.stats import learning_stats, list_versions
from web_app.feedback.training import count_corrections, list_corrections
from web_app.observability.health import living_workers
from web_app.pages.figures import FILTERS, engine_sentence, golden_plot, read_card
from web_app.services import require_detection, services
from web_app.texts import LANGUAGE, text

blueprint = Blueprint("pages", __name__)
for each in FILTERS:
    blueprint.add_app_template_filter(each)

NAVIGATION = (
    ("pages.index", "analyse"),
    ("pages.live", "live"),
    ("pages.history", "history"),
    ("pages.case", "cases"),
    ("pages.learning", "learning"),
    ("pages.model", "model"),
)
"""Endpoint and name of the pages that every page leads to."""
REVIEW_STATES = (
    "waiting", "contradiction", "accepted", "duplicate", "quota", "out_of_domain", "rejected", "all",
)  # fmt: skip
CORRECTIONS = 50
"""As many are on the page, those that are lost first; the API has all."""


def format_duration(seconds: float) -> str:
    """A limit in words: `10 minutes`, `90 seconds`."""
    value, unit = (seconds / 60, "minutes") if seconds >= 60 and seconds % 60 == 0 else (seconds, "seconds")
    return str(text(f"start.{unit}", n=int(value) if value == int(value) else value))


@blueprint.app_context_processor
def words() -> dict[str, object]:
    """What every template may use: its texts, whether readers sign in, and what this one may do.

    So a page offers nothing else; the API checks it again.
    """
    try:
        scopes = caller().scopes
    except (UnauthorizedError, OperationalError):  # the sign-in form; a page that says why
        scopes = frozenset()
    return {
        "t": text, "language": LANGUAGE, "keys_on": services().settings.security.keys == "on", "nav": NAVIGATION,
        "may_moderate": "moderate" in scopes, "may_administer": "admin" in scopes,
    }  # fmt: skip


@blueprint.get("/")
def index() -> str:
    settings = services().settings
    return render_template(
        "index.html",
        media=settings.media,
        longest=format_duration(settings.media.max_duration_s),
        titles={kind.value: ", ".join(titles(kind)) for kind in MediaKind},
        endings=sorted(frozenset().union(*SUFFIXES.values())),
    )


@blueprint.get("/live")
def live() -> Response:
    """Camera and microphone, which no other page may use; its module sends pictures and sound with `keep=0`."""
    answer, policy = make_response(render_template("live.html")), HEADERS["Permissions-Policy"]
    for device in ("camera", "microphone"):
        policy = policy.replace(f"{device}=()", f"{device}=(self)")
    answer.headers["Permissions-Policy"] = policy
    return answer


@blueprint.get("/history")
def history() -> str:
    """Earlier analyses; filters and page number travel in the query and are read by the module."""
    days = services().settings.storage.retention_days
    kept = text("archive.retention", n=days) if days else text("archive.kept")
    return render_template("history.html", retention=kept)


@blueprint.get("/model")
def model() -> str:
    """The served version: scorecard, false alarms per real source, and what it was trained on."""
    parts = services()
    with parts.database.read() as session:
        workers = [row.facts for row in living_workers(session, parts.settings)]
    version, card = read_card(parts.settings)
    return render_template("model.html", version=version, card=card, engine=engine_sentence(workers, version))


@blueprint.get("/detections/<detection_id>")
def detection(detection_id: str) -> str:
    with services().database.read() as session:
        require_detection(session, detection_id)
    return render_template("detection.html", detection_id=detection_id)


@blueprint.get("/cases")
@blueprint.get("/cases/<case_id>")
def case(case_id: str = "") -> str:
    """All cases, or one; filled by the module."""
    if case_id:
        with services().database.read() as session:
            require_own(session, CaseRow, case_id, "case")
    return render_template("cases.html", case_id=case_id)


@blueprint.get("/learning")
def learning() -> str:
    """Model learning progress: what users said, what was learned, and how the golden set judged each version."""
    parts = services()
    stats = learning_stats(parts)
    with parts.database.read() as session:
        corrections = list_corrections(session)
    return render_template(
        "learning.html",
        stats=stats,
        versions=list_versions(parts),
        corrections=corrections[:CORRECTIONS],
        counts=count_corrections(corrections),
        plot=golden_plot(stats["golden"]),
        rules=parts.settings.learning,
    )


@blueprint.get("/review")
def review() -> str:
    """What waits for a moderator; readers without that right are told so."""
    if "moderate" not in caller().scopes:
        abort(403)
    return render_template("review.html", states=REVIEW_STATES)


@blueprint.get("/reference")
def reference() -> Response:
    return redirect(url_for("api.get_docs"), 308)
