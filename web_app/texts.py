"""The words of the templates, out of the one catalogue that the page's modules use too: `static/strings`."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

LANGUAGE = "en"
FOLDER = Path(__file__).resolve().parent / "static" / "strings"


@functools.cache
def catalogue() -> dict[str, Any]:
    words: dict[str, Any] = json.loads((FOLDER / f"{LANGUAGE}.json").read_text(encoding="utf-8"))
    return words


def text(key: str, **values: object) -> Any:
    """The text (or list of texts) under a dotted key, with `{name}` places filled; `n` chooses between one and many.

    Raises:
        KeyError: the catalogue has no such text, or it has a place without a value.
    """
    found: Any = catalogue()
    for part in key.split("."):
        found = found[part]
    if isinstance(found, dict):
        found = found["one" if values["n"] == 1 else "other"]
    return found.format(**values) if isinstance(found, str) else found
