"""`python -m web_app.api` (make openapi) writes docs/openapi.json and docs/report.schema.json, so that a change of the
API shows in review."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from web_app.api.openapi import SERVERS, openapi_document
from web_app.api.routing import ROUTES
from web_app.api.schemas.analysis import ReportDocument
from web_app.paths import ROOT

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def documents() -> dict[Path, dict[str, Any]]:
    """What the present code says, by the file that holds it."""
    return {
        ROOT / "docs" / "openapi.json": openapi_document(ROUTES, SERVERS),
        ROOT / "docs" / "report.schema.json": {"$schema": DIALECT, **ReportDocument.model_json_schema()},
    }


def document_text(document: dict[str, Any]) -> str:
    """A document as its file holds it."""
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for path, document in documents().items():
        path.write_text(document_text(document), encoding="utf-8")
