"""Examples of what the pages use beyond analyses: history, close-ups, learning, review; `EXAMPLES` holds all."""

from __future__ import annotations

from typing import Any

from web_app.api.examples import (
    ANALYSIS_EXAMPLES,
    CREATED,
    FINISHED,
    ID,
    LINKS,
    RESULT,
    SHA256,
    WEBHOOK,
)

HISTORY_ITEM = {
    "id": ID, "name": "photo.jpg", "kind": "image", "format": "jpeg", "size_bytes": 81234, "sha256": SHA256,
    "state": "done", "prediction": "fake", "fake_probability": 0.93, "confidence": 0.93, "model_version": "v1",
    "created": CREATED, "finished": FINISHED, "error": None, "feedback": None,
    "thumbnail": f"/api/v1/detections/{ID}/thumbnail", "links": LINKS,
}  # fmt: skip
FEEDBACK_STATE: dict[str, Any] = {
    "id": ID, "feedback": "incorrect", "actual": "real", "category": "other", "note": "my own photo", "faces": {},
    "state": "waiting", "reason": "No trusted user, and 1 of 3 users who must agree.", "learned_version": None,
    "created": FINISHED,
}  # fmt: skip
CLOSEUP = {
    "face": 0, "state": "done", "stage": None, "fraction": 1.0, "position": None, "error": None,
    "result": {
        "face": 0, "frame": 0, "time_s": 0.0, "square": [190.0, 60.0, 350.0, 260.0], "model_version": "v1",
        "maps": [
            {
                "expert": "vit", "title": "ViT-B/16", "method": "gradient rollout",
                "heatmap": f"/api/v1/detections/{ID}/heatmap?face=0&expert=vit", "gain": 1.4, "random_gain": 0.2,
                "beaten": 16, "masks": 16, "faithful": True,
            }
        ],
        "trials": [
            {"code": "original", "title": "As it is", "outcome": "fake", "probability": 0.93, "flipped": False}
        ],
    },
}  # fmt: skip
GOLDEN = {"version": "v1-r0001", "time": FINISHED, "promoted": True, "auc": 0.948, "ece": 0.029, "worst_slice": 0.91}
TRAINING = {
    "id": ID, "state": "done", "stage": None, "fraction": 1.0, "attempts": 1, "created": CREATED, "started": CREATED,
    "finished": FINISHED, "error": None, "result": {"version": "v1-r0001", "promoted": True, "reason": "It is better."},
    "links": {"training": f"/api/v1/rl/retrain/{ID}"},
}  # fmt: skip
STATS = {
    "feedback": {
        "total": 3, "correct": 2, "incorrect": 1, "by_label": {"real": 2, "fake": 1}, "accepted": 2, "learned": 1,
        "new": 1, "quarantined": {"waiting": 1},
    },
    "accuracy_on_feedback": 0.67,
    "trainings": {
        "total": 1, "promoted": 1, "rejected": 0, "improvements": 1, "regressions": 0, "mean_loss": 0.41,
        "accuracy_before": 0.5, "accuracy_after": 1.0, "last_rejection": None, "last": None, "damaged_lines": 0,
        "chain_intact": True, "running": None,
    },
    "golden": [GOLDEN],
    "model_version": "v1-r0001",
    "chosen_version": "v1-r0001",
    "loaded": [{"worker": "worker-1", "version": "v1-r0001", "refused": None}],
    "poison_drill": None,
}  # fmt: skip
REVIEW_CASE = {
    "media_sha256": SHA256, "kind": "image", "media": f"/api/v1/rl/review/{SHA256}/media",
    "votes": [
        {
            "user": 1, "feedback": "incorrect", "actual": "real", "category": "other", "note": "my own photo",
            "faces": {}, "trusted": False, "state": "waiting", "reason": FEEDBACK_STATE["reason"],
            "prediction": "fake", "fake_probability": 0.93, "model_version": "v1", "learned_version": None,
            "created": FINISHED,
        }
    ],
    "decision": None, "learnable": None,
}  # fmt: skip

EXAMPLES: dict[str, dict[str, Any]] = {
    **ANALYSIS_EXAMPLES,
    "Detection": {**RESULT, "name": "photo.jpg", "created": CREATED, "feedback": FEEDBACK_STATE, "links": LINKS},
    "FeedbackState": FEEDBACK_STATE,
    "History": {"items": [HISTORY_ITEM], "page": 1, "per_page": 20, "total": 1},
    "Versions": {
        "items": [
            {"id": ID, "model_version": "v1", "prediction": "fake", "fake_probability": 0.93, "created": CREATED}
        ]
    },
    "Cleared": {"deleted": 12},
    "Closeup": CLOSEUP,
    "Webhooks": {"items": [WEBHOOK]},
    "Health": {"status": "ok"},
    "Ready": {
        "ready": True,
        "checks": [{"name": "database", "ok": True, "detail": "it answers"}],
        "warnings": [],
        "waiting": 0,
        "version": "0.1.0",
        "model_version": "v1",
        "workers": [{"id": "worker-1", "model_version": "v1", "sandbox": ["no_network", "syscall_filter"]}],
    },
    "Stats": STATS,
    "Training": TRAINING,
    "LearnedVersions": {
        "items": [
            {
                "version": "v1-r0001", "current": True, "loaded": True, "base": "v1", "parent": "v1",
                "created": FINISHED, "promoted": True, "reason": "It is better.", "golden": GOLDEN,
            }
        ],
        "pinned": False,
    },
    "RollbackRequest": {"version": "v1"},
    "RolledBack": {"version": "v1", "previous": "v1-r0001"},
    "Review": {"items": [REVIEW_CASE], "page": 1, "per_page": 20, "total": 1, "counts": {"waiting": 1}},
    "ReviewCase": REVIEW_CASE,
    "DecisionRequest": {"decision": "accept", "label": "real", "note": "The photographer confirms it."},
}  # fmt: skip
