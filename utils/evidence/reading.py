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
    """Reads files; made before the child confines itself, for its libraries load late otherwise.

    Args:
        trust_list: path of the trusted signers' certificates, PEM; empty trusts nobody.
    """

    def __init__(self, trust_list: str) -> None:
        trusted = Path(trust_list).read_text(encoding="utf-8") if trust_list else None
        self._credentials = credentials.Reader(trusted)

    def read(
        self, file: BinaryIO, format_name: str, mime: str, read_tags: Callable[[], list[tuple[str, str]]]
    ) -> dict[str, Any]:
        """What the file says, as plain JSON values of bounded length.

        Args:
            file: open for reading; its position is changed.
            format_name: of the sniffed format.
            mime: its media type.
            read_tags: key and text of each tag of a film or recording.
        """
        failed: list[str] = []

        def attempt(part: str, read: Callable[[], Any]) -> Any:
            try:
                return read()
            except Exception:  # noqa: BLE001 - whatever hostile metadata do to a parser, the rest is read
                failed.append(part)
                return None

        tags = attempt("tags", read_tags) or []
        fields = attempt("texts", lambda: read_fields(file, format_name, tags)) or []
        found = {
            "marks": attempt("marks", lambda: [_mark(match) for match in find_matches(fields)][:MAX_MARKS]) or [],
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


def _mark(match: Any) -> list[Any]:
    field = match.field
    return [match.row, _short(match.group, MAX_NAME), field.place, _short(field.key, MAX_NAME), _short(field.text)]


def _camera(fields: list[Field]) -> list[str] | None:
    """Place and name of the camera, where the file names one."""
    named: dict[tuple[str, str], str] = {}
    for field in fields:
        key = field.key.rpartition(".")[2]  # com.apple.quicktime.make
        if key in ("make", "model", "manufacturer"):
            named.setdefault((field.place, "make" if key == "manufacturer" else key), _short(field.text, MAX_NAME))
    for place in ("exif", "xmp", "tag"):
        make, model = named.get((place, "make"), ""), named.get((place, "model"), "")
        if model and '"class_type"' not in model:
            return [place, model if model.lower().startswith(make.lower()) else f"{make} {model}"]
    return None


def _steps(fields: list[Field]) -> Iterator[str]:
    """The steps of an XMP history: action, program and time of each."""
    step: dict[str, str] = {}
    for field in fields:
        if field.place == "xmp" and field.key in ("action", "softwareagent", "when"):
            if field.key in step:
                yield _short(_step(step))
                step = {}
            step[field.key] = field.text
    if "action" in step:
        yield _short(_step(step))


def _step(step: dict[str, str]) -> str:
    agent, when = step.get("softwareagent"), step.get("when")
    return step.get("action", "changed") + (f" by {agent}" if agent else "") + (f" on {when}" if when else "")
