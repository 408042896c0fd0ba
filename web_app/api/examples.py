"""Examples for the OpenAPI document, one per model that people meet; the tests hold them against the models."""

from __future__ import annotations

from typing import Any

ID = "5f2b8c1d9e4a7f306b1c2d3e4f5a6b7c"
SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
MODEL_SHA256 = "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752"
CREATED, FINISHED = "2026-03-01T12:00:00+00:00", "2026-03-01T12:00:01+00:00"

PATH_EXAMPLES = {"id": ID, "name": "swagger-ui.css", "sha256": SHA256}

LINKS = {
    "job": f"/api/v1/jobs/{ID}",
    "events": f"/api/v1/jobs/{ID}/events",
    "detection": f"/api/v1/detections/{ID}",
    "media": f"/api/v1/detections/{ID}/media",
    "page": f"/detections/{ID}",
}
VERDICT = {
    "outcome": "fake",
    "headline": "Substantial evidence of manipulation",
    "probability": 0.93,
    "interval": [0.88, 0.97],
    "reasons": [{"code": "above_band", "text": "The probability of manipulation lies above 80%."}],
}
EXPERTS = [
    {
        "name": "vit", "title": "ViT-B/16", "looks_at": "the whole face", "available": True, "probability": 0.93,
        "weight": 1.0, "missing_because": None,
    }
]  # fmt: skip
RESULT: dict[str, Any] = {
    "id": ID,
    "schema_version": 1,
    "media": {
        "kind": "image", "format": "jpeg", "mime": "image/jpeg", "width": 640, "height": 480, "size_bytes": 81234,
        "sha256": SHA256, "duration_s": None, "fps": None, "codec": None,
    },
    "verdict": VERDICT,
    "faces": [
        {
            "id": 0, "verdict": VERDICT, "experts": EXPERTS,
            "frames": [{"frame": 0, "time_s": 0.0, "probability": 0.93, "box": [210.5, 80.0, 330.5, 240.0]}],
            "quality": {"face_px": 160.0},
        }
    ],
    "deciding_face": 0,
    "model_version": "v1",
    "model_sha256": MODEL_SHA256,
    "threshold": 0.5,
    "times_ms": {"decode": 61.0, "detect": 40.2, "experts": 310.5, "decide": 1.2, "total": 412.9},
    "notices": [],
    "settings": {"threshold": 0.5, "experts": "cnn,resnext,vit,lstm", "max_faces": 8, "frames": 16, "min_face_px": 40},
    "prediction": "fake",
    "fake_probability": 0.93,
    "real_probability": 0.07,
    "confidence": 0.93,
    "experts": EXPERTS,
    "timeline": [{"frame": 0, "time_s": 0.0, "probability": 0.93}],
}  # fmt: skip
PROBLEM = {
    "type": "urn:telltale:error:media_too_large",
    "title": "The file is larger than allowed",
    "status": 413,
    "detail": "The file is larger than 200 MB.",
    "code": "media_too_large",
    "remedy": "Send a smaller file, or raise the limit in config.ini, section [media].",
    "limit_bytes": 200000000,
    "instance": "/api/v1/detect",
}
FEEDBACK_REQUEST = {"id": ID, "feedback": "incorrect", "actual": "real", "note": "my own photo"}
JOB = {
    "id": ID, "state": "running", "stage": "experts", "fraction": 0.62, "position": None, "attempts": 1,
    "created": CREATED, "started": CREATED, "finished": None, "error": None, "result": None, "links": LINKS,
}  # fmt: skip
BATCH = {
    "id": ID,
    "created": CREATED,
    "finished": True,
    "counts": {"done": 1, "refused": 1},
    "items": [
        {
            "name": "photo.jpg", "id": ID, "state": "done", "prediction": "fake", "fake_probability": 0.93,
            "error": None, "links": LINKS,
        },
        {
            "name": "film.mp4", "id": None, "state": "refused", "prediction": None, "fake_probability": None,
            "error": PROBLEM, "links": None,
        },
    ],
}  # fmt: skip
WEBHOOK = {"id": ID, "url": "https://example.org/telltale", "created": CREATED}
DELIVERY = {
    "analysis": ID, "type": "analysis.done", "state": "delivered", "attempts": 1, "status": 204, "error": None,
    "next_attempt": None, "created": FINISHED,
}  # fmt: skip

ANALYSIS_EXAMPLES: dict[str, dict[str, Any]] = {
    "Result": RESULT,
    "Problem": PROBLEM,
    "Accepted": {"id": ID, "state": "queued", "repeated": False, "links": LINKS},
    "Job": JOB,
    "FeedbackRequest": FEEDBACK_REQUEST,
    "UrlRequest": {"url": "https://example.org/photo.jpg"},
    "Batch": BATCH,
    "Webhook": WEBHOOK,
    "NewWebhook": {**WEBHOOK, "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"},
    "Deliveries": {"items": [DELIVERY]},
    "ReportDocument": {
        "document": "telltale-report",
        "document_version": 1,
        "telltale_version": "0.1.0",
        "id": ID,
        "name": "photo.jpg",
        "analysed": FINISHED,
        "sha256": SHA256,
        "model": {"version": "v1", "sha256": MODEL_SHA256},
        "settings": RESULT["settings"],
        "limits": ["Only faces were examined. Sound, text and everything else in the file were not."],
        "analysis": RESULT,
        "reproduce": "python inference.py --verify report.json FILE",
    },
}
