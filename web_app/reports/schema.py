"""Writes docs/report.schema.json, the JSON Schema of report documents: `python -m web_app.reports.schema`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from web_app.api.report_schemas import ReportDocument
from web_app.paths import ROOT

SCHEMA_FILE = ROOT / "docs" / "report.schema.json"
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def report_schema() -> dict[str, Any]:
    """The JSON Schema of `ReportDocument`."""
    return {"$schema": DIALECT, **ReportDocument.model_json_schema(mode="validation")}


def schema_text() -> str:
    """The schema as the file holds it."""
    return json.dumps(report_schema(), indent=2, ensure_ascii=False) + "\n"


def main(path: Path = SCHEMA_FILE) -> int:
    """Write the file and return 0."""
    path.write_text(schema_text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
