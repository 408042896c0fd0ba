"""Everything that a file says of itself, as short texts: the child's side; `answer.py` is the parent's.

The parts are read one after the other, and one that fails takes nothing from the others: its name is told instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from utils.evidence import compression, credentials
from utils.evidence.answer import MAX_MARKS, MAX_NAME, MAX_STEPS, MAX_VALUE
from utils.evidence.fields import read_fields
from utils.evidence.marks import Field, find_matches


class EvidenceReader:
    """Reads files; made before the child confines itself, with the path of the trusted certificates (or nothing)."""

    def __init__(self, trust_list: str) -> None:
        trusted = Path(trust_list).read_text(encoding="ascii", errors="ignore") if trust_list else None
        self._credentials = credentials.Reader(trusted)

    def read(
        self, file: BinaryIO, format_name: str, mime: str, read_tags: Callable[[], list[tuple[str, str]]]
    ) -> dict[str, Any]:
        """What the file says, as plain JSON values of bounded length.

        Args:
            file: open for reading; its position is changed.
            format_name: of the sniffed format.
            mime: its media type.
            read_tags: gives key and text of each tag of a film or recording.
        """
        failed: list[str] = []

        def attempt(part: str, read: Callable[[], Any]) -> Any:
            try:
                return read()
            except Exception:  # noqa: BLE001 - whatever hostile metadata do to a parser, the rest is read
                failed.append(part)
                return None

        tags = attempt("tags", read_tags) or []
        fields = attempt("texts", lambda: read_fields(file, format_name, tags, failed)) or []
        found = {
            "marks": attempt("marks", lambda: _marks(fields)) or [],
            "camera": attempt("camera", lambda: _camera(fields)),
            "steps": attempt("history", lambda: list(_steps(fields))[-MAX_STEPS:]) or [],
            "source_type": next((_short(f.text) for f in fields if f.key == "digitalsourcetype"), None),
            "credentials": attempt("credentials", lambda: _shortened(self._credentials.read(file, mime))),
        }
        if format_name == "jpeg":
            found["compression"] = attempt("compression", lambda: compression.read_compression(file))
        return {**found, "failed": failed}


def _short(text: str, most: int = MAX_VALUE) -> str:
    return "".join(c if c.isprintable() else " " for c in text[:most]).strip()


def _shortened(value: Any) -> Any:
    """Plain values with their texts shortened."""
    if isinstance(value, dict):
        return {key: _shortened(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_shortened(each) for each in value]
    return _short(value, MAX_NAME) if isinstance(value, str) else value


def _marks(fields: list[Field]) -> list[list[Any]]:
    return [
        [row, _short(group, MAX_NAME), field.place, _short(field.key, MAX_NAME), _short(field.text)]
        for row, group, field in find_matches(fields)
    ][:MAX_MARKS]


def _camera(fields: list[Field]) -> list[str] | None:
    """Place and name of the camera, where the file names one."""
    for place in ("exif", "xmp", "tag"):
        named = {f.key.rpartition(".")[2]: f.text for f in reversed(fields) if f.place == place}  # com.apple.[...].make
        make, model = (_short(named.get(key, ""), MAX_NAME) for key in ("make", "model"))
        if model and '"class_type"' not in model:
            return [place, model if model.lower().startswith(make.lower()) else f"{make} {model}"]
    return None


def _steps(fields: list[Field]) -> Iterator[str]:
    """The steps of an XMP history: action, program and time of each."""
    step: dict[str, str] = {}
    for field in [*(f for f in fields if f.place == "xmp"), Field("xmp", "action", "")]:
        if field.key == "action" and "action" in step:
            agent, when = step.get("softwareagent"), step.get("when")
            yield _short(step["action"] + (f" by {agent}" if agent else "") + (f" on {when}" if when else ""))
            step = {}
        if field.key in ("action", "softwareagent", "when"):
            step[field.key] = field.text
