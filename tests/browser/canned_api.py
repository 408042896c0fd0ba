"""A small app with the real pages and canned answers of the REST API, for tests of the page alone.

The reports are real `Report` values, so that the page is held to the same contract as the server. What becomes of an
upload is decided by its name: `portrait`, `open`, `landscape`, `clip`, `broken`; a name with `slow` waits in the queue,
one with `endless` is never finished, and one with `busy` is refused once.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, Flask, Response, current_app, jsonify, request, url_for

from tests.browser.canned_reports import REPORTS, canned_closeup
from tests.browser.media import make_heatmap
from utils.config import MediaSettings, Settings
from utils.errors import MediaCorruptError, NotFoundError, RateLimitError, TelltaleError
from web_app.auth import identity
from web_app.pages import SETTINGS_KEY, blueprint

api = Blueprint("canned", __name__, url_prefix="/api")
STAGES = ("decode", "detect", "experts", "decide")


@dataclass
class Entry:
    """One upload: its bytes and what is known about it."""

    id: str
    name: str
    mime: str
    content: bytes
    started: float = field(default_factory=time.monotonic)
    cancelled: bool = False
    closeups: dict[int, float] = field(default_factory=dict)
    feedback: dict[str, Any] | None = None

    @property
    def scenario(self) -> str:
        return next((key for key in REPORTS if key in self.name), "portrait")


@dataclass
class Desk:
    """All entries, and how long a job takes."""

    job_s: float
    entries: dict[str, Entry] = field(default_factory=dict)
    refused: bool = False

    def find(self, entry_id: str) -> Entry:
        if entry_id not in self.entries:
            raise NotFoundError("There is no analysis with this id.")
        return self.entries[entry_id]

    def job(self, entry: Entry) -> dict[str, Any]:
        age = (time.monotonic() - entry.started) / self.job_s
        job: dict[str, Any] = {"id": entry.id, "state": "queued", "stage": None, "fraction": 0.0, "position": 2}
        if entry.cancelled:
            return {**job, "state": "cancelled", "position": None}
        if "slow" in entry.name or age < 0.3:
            return job
        if "endless" in entry.name:
            return {**job, "state": "running", "stage": "experts", "fraction": 0.6, "position": None}
        if age < 1:
            return {
                **job,
                "state": "running",
                "stage": STAGES[int((age - 0.3) * 5.7)],
                "fraction": age,
                "position": None,
            }
        if "broken" in entry.name:
            error = MediaCorruptError("No frame of the file could be decoded.")
            return {**job, "state": "failed", "position": None, "error": error.to_problem()}
        return {**job, "state": "done", "fraction": 1.0, "position": None, "result": REPORTS[entry.scenario].to_dict()}

    def detection(self, entry: Entry) -> dict[str, Any]:
        report = REPORTS[entry.scenario].to_dict()
        return {"id": entry.id, "name": entry.name, "created": _now(), **report, "feedback": entry.feedback}


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _desk() -> Desk:
    desk: Desk = current_app.config["DESK"]
    return desk


@api.post("/detect")
def detect() -> Any:
    assert request.headers["Prefer"] == "respond-async"
    file = request.files["file"]
    content = file.read()
    desk = _desk()
    if "busy" in (file.filename or "") and not desk.refused:
        desk.refused = True
        error = RateLimitError("Too many requests.")
        return jsonify(error.to_problem()), error.status, {"Retry-After": "1"}
    entry_id = secrets.token_hex(16)
    entry = Entry(entry_id, file.filename or "", file.mimetype, content)
    _desk().entries[entry_id] = entry
    if "at-once" in entry.name:
        return {"id": entry_id, **REPORTS[entry.scenario].to_dict()}
    return {"id": entry_id, "state": "queued", "links": {"self": url_for("canned.job", entry_id=entry_id)}}, 202


@api.get("/jobs/<entry_id>")
def job(entry_id: str) -> Any:
    return _desk().job(_desk().find(entry_id))


@api.get("/jobs/<entry_id>/events")
def events(entry_id: str) -> Response:
    desk = _desk()
    entry = desk.find(entry_id)
    if "polled" in entry.name:
        raise NotFoundError("A proxy has swallowed the events.")

    def follow() -> Iterator[str]:
        while True:
            job = desk.job(entry)
            yield f"event: message\ndata: {json.dumps(job)}\n\n"
            if job["state"] not in {"queued", "running"}:
                return
            time.sleep(0.05)

    return Response(follow(), mimetype="text/event-stream")


@api.delete("/jobs/<entry_id>")
def cancel(entry_id: str) -> Any:
    _desk().find(entry_id).cancelled = True
    return "", 204


@api.get("/detections/<entry_id>")
def detection(entry_id: str) -> Any:
    return _desk().detection(_desk().find(entry_id))


@api.delete("/detections/<entry_id>")
def delete(entry_id: str) -> Any:
    _desk().entries.pop(_desk().find(entry_id).id)
    return "", 204


@api.get("/detections/<entry_id>/media")
def media(entry_id: str) -> Response:
    entry = _desk().find(entry_id)
    response = Response(entry.content, mimetype=entry.mime)
    response.accept_ranges = "bytes"
    response.make_conditional(request, accept_ranges=True, complete_length=len(entry.content))
    return response


@api.get("/detections/<entry_id>/thumbnail")
def thumbnail(entry_id: str) -> Response:
    return Response(_desk().find(entry_id).content, mimetype="image/jpeg")


@api.get("/detections/<entry_id>/versions")
def versions(entry_id: str) -> Any:
    entry = _desk().find(entry_id)
    report = REPORTS[entry.scenario].to_dict()
    known = {"prediction": report["prediction"], "fake_probability": report["fake_probability"], "created": _now()}
    older = {"id": "earlier", "model_version": "v-older", "prediction": "real", "fake_probability": 0.21}
    return {
        "items": [{"id": entry.id, "model_version": report["model_version"], **known}, {**older, "created": _now()}]
    }


@api.get("/detections/<entry_id>/closeup")
def closeup(entry_id: str) -> Any:
    entry, face = _desk().find(entry_id), int(request.args["face"])
    known = {"face": face, "stage": None, "fraction": 0.0, "position": None, "error": None, "result": None}
    if face not in entry.closeups:
        return {**known, "state": None}
    address = url_for("canned.heatmap", entry_id=entry_id, face=face)
    age = (time.monotonic() - entry.closeups[face]) / _desk().job_s
    if age < 0.3:
        return {**known, "state": "queued", "position": 0}
    if age < 1:
        return {**known, "state": "running", "stage": "explain", "fraction": age}
    return {**known, "state": "done", "result": canned_closeup(face, REPORTS[entry.scenario], address)}


@api.post("/detections/<entry_id>/closeup")
def ask_closeup(entry_id: str) -> Any:
    _desk().find(entry_id).closeups.setdefault(int(request.args["face"]), time.monotonic())
    return closeup(entry_id), 202


@api.get("/detections/<entry_id>/heatmap")
def heatmap(entry_id: str) -> Response:
    _desk().find(entry_id)
    return Response(make_heatmap(), mimetype="image/png")


@api.post("/feedback")
def feedback() -> Any:
    given = request.get_json()
    said = {"note": None, "faces": {}, "reason": "It waits for its first check.", "state": "waiting"}
    said |= {"outlook": "waits_for_users", "missing_users": 2}
    said |= {key: value for key, value in given.items() if key != "id"}
    _desk().find(given["id"]).feedback = said
    return {"id": given["id"], **said}, 201


@api.delete("/feedback/<entry_id>")
def undo_feedback(entry_id: str) -> Any:
    _desk().find(entry_id).feedback = None
    return "", 204


@api.delete("/history")
def clear_history() -> Any:
    deleted = len(_desk().entries)
    _desk().entries.clear()
    return {"deleted": deleted}


@api.get("/history")
def history() -> Any:
    page, per_page = int(request.args["page"]), int(request.args["per_page"])
    items = []
    for entry in reversed(_desk().entries.values()):
        state = _desk().job(entry)["state"]
        report = REPORTS[entry.scenario].to_dict()
        done = state == "done"
        items.append(
            {
                "id": entry.id,
                "name": entry.name,
                "kind": report["media"]["kind"],
                "prediction": report["prediction"] if done else None,
                "fake_probability": report["fake_probability"] if done else None,
                "created": _now(),
                "model_version": report["model_version"] if done else None,
                "state": state,
                "thumbnail": url_for("canned.thumbnail", entry_id=entry.id)
                if report["media"]["kind"] == "image"
                else None,
            }
        )
    for key in ("kind", "prediction"):
        items = [item for item in items if request.args.get(key) in (None, item[key])]
    items = [item for item in items if request.args.get("text", "").lower() in item["name"].lower()]
    today = _now()[:10]
    if request.args.get("since", today) > today or request.args.get("until", today) < today:
        items = []
    start = (page - 1) * per_page
    return {"items": items[start : start + per_page], "page": page, "per_page": per_page, "total": len(items)}


def create_canned_app(job_s: float = 0.3) -> Flask:
    """The pages with canned answers; nothing leaves memory."""
    app = Flask("web_app")
    app.config[SETTINGS_KEY] = Settings(media=MediaSettings(max_file_mb=2))
    app.config["DESK"] = Desk(job_s)
    app.after_request(identity.add_headers)
    app.register_blueprint(blueprint)
    app.register_blueprint(api)

    @app.errorhandler(TelltaleError)
    def problem(error: TelltaleError) -> Any:
        response = jsonify(error.to_problem())
        response.mimetype = "application/problem+json"
        return response, error.status

    return app
