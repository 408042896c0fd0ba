"""The pages people see: upload and result, live camera, history, one detection, the model, and the learning.

They are shells; the modules in `static/js` fill them from the REST API, so that page and API never tell two stories.
"""

from __future__ import annotations

from flask import Blueprint, make_response, redirect, render_template, url_for
from werkzeug.wrappers import Response

from utils.media.sniff import SUFFIXES, titles
from utils.types import MediaKind
from web_app.auth.identity import HEADERS
from web_app.observability.health import living_workers
from web_app.pages.learning import add_learning_pages
from web_app.pages.model import add_filters, engine_sentence, read_card
from web_app.services import services
from web_app.texts import LANGUAGE, text

blueprint = Blueprint("pages", __name__)
add_learning_pages(blueprint)
add_filters(blueprint)


NAVIGATION = (
    ("pages.index", "analyse"),
    ("pages.live", "live"),
    ("pages.history", "history"),
    ("pages.learning", "learning"),
    ("pages.model", "model"),
)
"""Endpoint and name of the pages that every page leads to."""


def format_duration(seconds: float) -> str:
    """A limit in words: `10 minutes`, `90 seconds`."""
    value, unit = (seconds / 60, "minutes") if seconds >= 60 and seconds % 60 == 0 else (seconds, "seconds")
    return str(text(f"start.{unit}", n=int(value) if value == int(value) else value))


@blueprint.app_context_processor
def words() -> dict[str, object]:
    """What every template may use: its texts, and whether readers sign in."""
    return {"t": text, "language": LANGUAGE, "keys_on": services().settings.security.keys == "on", "nav": NAVIGATION}


@blueprint.get("/")
def index() -> str:
    """Upload and result."""
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
    """The live camera, which no other page may use; its module sends pictures to /api/detect/image with `keep=0`."""
    answer = make_response(render_template("live.html"))
    answer.headers["Permissions-Policy"] = HEADERS["Permissions-Policy"].replace("camera=()", "camera=(self)")
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
    """The permalink of one analysis; an unknown id is told by the API's answer."""
    return render_template("detection.html", detection_id=detection_id)


@blueprint.get("/reference")
def reference() -> Response:
    """The page of the API, which is at /api/docs."""
    return redirect(url_for("api.get_docs"), 308)
