"""The pages people see: upload and result, live camera, history, one detection, the model, and the learning.

They are shells; the modules in `static/js` fill them from the REST API, so that page and API never tell two stories.

The template of the model's page reads the served version's card itself, which its training wrote and which travels
with the weights; filters turn its figures and names into words. Of the learning's page here is the geometry of the plot
of golden-set figures per version; the template draws it as SVG, without script and style.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flask import Blueprint, abort, make_response, redirect, render_template, url_for
from sqlalchemy.exc import OperationalError
from werkzeug.wrappers import Response

from models.cards import EXPERT_NAMES, expert_card
from utils.config import Settings
from utils.errors import UnauthorizedError
from utils.media.sniff import SUFFIXES, titles
from utils.types import MediaKind
from utils.weights import CARD_FILE, current_name, read_document, weights_root
from web_app.auth.identity import HEADERS, caller, require_own
from web_app.db.models import CaseRow
from web_app.feedback.stats import learning_stats, list_versions
from web_app.feedback.training import count_corrections, list_corrections
from web_app.observability.health import living_workers
from web_app.services import require_detection, services
from web_app.texts import LANGUAGE, catalogue, text

blueprint = Blueprint("pages", __name__)

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
NONE = "–"
JOINED = ("clips", "pictures")  # sets of the scorecard that join several sources
WIDTH, LEFT, RIGHT = 720.0, 52.0, 16.0
TOP, HEIGHT, GAP = 12.0, 132.0, 30.0
TICKS = 4
MOST_NAMES = 12  # more would overlap; then every second, third, ... version is named
PANELS = (("auc", "worst_slice"), ("ece",))


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
    return render_template("history.html", kept=text("archive.retention", n=days) if days else text("archive.kept"))


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


def read_card(settings: Settings) -> tuple[str, Mapping[str, Any]]:
    """Name and card of the served version.

    Raises:
        WeightsError: no version is chosen, or its card cannot be read.
    """
    root = weights_root(settings)
    name = settings.weights.version or current_name(root)
    return name, read_document(root / name / CARD_FILE)


def engine_sentence(workers: Iterable[Mapping[str, Any]], version: str) -> str:
    """Which engine the worker that serves a version computes with, and each network's precision; empty without one."""
    worker = next((each for each in workers if each.get("model_version") == version), {})
    precisions: Mapping[str, str] = worker.get("precisions") or {}
    if not precisions or "engine" not in worker:
        return ""
    named = [f"{expert_card(key).title if key in EXPERT_NAMES else key} {value}" for key, value in precisions.items()]
    return str(text("model.engine", engine=worker["engine"], networks=", ".join(named)))


@blueprint.app_template_filter()
def percent(figure: Sequence[float] | float | None) -> str:
    """A share with its interval in per cent: `3.4 % (0.9 to 7.3)`; a dash for none."""
    if not figure and figure != 0:
        return NONE
    if isinstance(figure, int | float):
        return f"{100 * figure:.0f}\u00a0%"
    value, low, high = figure
    return f"{100 * value:.1f}\u00a0% ({100 * low:.1f} to {100 * high:.1f})"


@blueprint.app_template_filter()
def decimal(figure: Sequence[float] | None) -> str:
    """A figure such as an AUC with its interval: `.892 (.849 to .932)`; a dash for none."""
    if not figure:
        return NONE
    value, low, high = (f"{part:.3f}".removeprefix("0") for part in figure)
    return f"{value} ({low} to {high})"


@blueprint.app_template_filter()
def set_title(name: str) -> str:
    """A set or source in words where the catalogue has them; `video:x` is the clips of source x."""
    source = name.removeprefix("video:")
    title = str(text(f"model.sets.{source}")) if source in catalogue()["model"]["sets"] else source.replace("_", " ")
    return title if source == name else str(text("model.clips_of", source=title))


@blueprint.app_template_filter()
def joined_last(sets: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The sets of a scorecard by name, those that join several sources at the end."""
    return sorted(sets.items(), key=lambda item: (item[0] in JOINED, item[0]))


@blueprint.app_template_filter()
def by_source(crops: Mapping[str, int]) -> list[tuple[str, Mapping[str, int]]]:
    """Counts of keys such as `train dfdc fake` as (`dfdc`, {`train_fake`: count}), clips at the end."""
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    for key, count in crops.items():
        split, _, rest = key.partition(" ")
        source, _, label = rest.rpartition(" ")
        if source:
            counts[source][f"{split}_{label}"] = count
    return sorted(counts.items(), key=lambda item: (item[0].startswith("video:"), item[0]))


def golden_plot(points: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Where everything goes of points as `GoldenPoint` of the API, oldest first; None when no version has figures.

    Two panels above each other (AUC with the worst slice; calibration error), and the names of the versions. A panel
    has horizontal lines, `ticks`, and a list of dots for each curve, which are `filled` when they were promoted.
    """
    shown = [point for point in points if point["auc"] is not None]
    if not shown:
        return None
    step = (WIDTH - LEFT - RIGHT) / max(len(shown), 2)
    placed = [(round(LEFT + step * (i + 0.5), 2), point) for i, point in enumerate(shown)]
    panels = [_panel(placed, keys, TOP + i * (HEIGHT + GAP)) for i, keys in enumerate(PANELS)]
    names = [{"at": x, "text": point["version"]} for x, point in placed[:: -(-len(shown) // MOST_NAMES)]]
    height = panels[-1]["bottom"] + 2 * GAP
    return {"width": WIDTH, "height": height, "left": LEFT, "right": WIDTH - RIGHT, "panels": panels, "names": names}


def _panel(placed: Sequence[tuple[float, Mapping[str, Any]]], keys: tuple[str, ...], top: float) -> dict[str, Any]:
    values = [float(point[key]) for _, point in placed for key in keys if point[key] is not None]
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = max((high - low) * 0.15, 0.005)
    low, high = max(low - margin, 0.0), min(high + margin, 1.0)

    def y(value: float) -> float:
        return round(top + HEIGHT * (high - value) / (high - low), 2)

    curves = {
        key: [
            {"x": x, "y": y(point[key]), "filled": point["promoted"], "title": f"{point['version']}: {point[key]:.4f}"}
            for x, point in placed
            if point[key] is not None
        ]
        for key in keys
    }
    heights = (low + (high - low) * i / (TICKS - 1) for i in range(TICKS))
    ticks = [{"at": y(value), "text": f"{value:.3f}"} for value in heights]
    return {"top": top, "bottom": top + HEIGHT, "curves": curves, "ticks": ticks}
