"""The loaded version and its change: followed, refused, pinned."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from utils.config import Settings, WeightsSettings
from utils.errors import WeightsCorruptError, WeightsMissingError
from web_app.feedback import model_handle as module
from web_app.feedback.model_handle import ModelHandle


@dataclass
class Loaded:
    version: str
    version_sha256: str = "0" * 64
    experts: tuple[str, ...] = ("cnn",)
    missing: dict[str, str] = field(default_factory=dict)
    engine: Any = field(default_factory=lambda: SimpleNamespace(name="torch", precisions={"cnn": "fp32"}))
    speech: Any = None


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("v1", "v2", "bad"):
        (tmp_path / name).mkdir()
    (tmp_path / "CURRENT").write_text("v1\n")
    return tmp_path


def load(settings: Settings, *, loaded: Loaded | None = None, speech: str | None = None) -> Loaded:
    name = settings.weights.version or (Path(settings.weights.dir) / "CURRENT").read_text().strip()
    if name == "bad":
        raise WeightsCorruptError("A byte is wrong.")
    return Loaded(name)


def serve(root: Path, pinned: str = "") -> ModelHandle:
    settings = dataclasses.replace(Settings(), weights=WeightsSettings(dir=str(root), version=pinned))
    return ModelHandle(settings, load)  # type: ignore[arg-type]


def test_the_pointer_is_followed(root: Path) -> None:
    served = serve(root)
    assert not served.refresh()
    (root / "CURRENT").write_text("v2\n")
    assert served.refresh()
    assert served.facts()["model_version"] == "v2"
    assert (served.facts()["changes"], served.facts()["refused"]) == (1, None)


def test_a_damaged_version_is_refused_and_tried_again_later(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = serve(root)
    (root / "CURRENT").write_text("bad\n")
    assert not served.refresh()
    refused = served.facts()["refused"]
    assert (refused["version"], served.facts()["model_version"]) == ("bad", "v1")
    assert "A byte is wrong." in refused["reason"]
    tried: list[Settings] = []
    monkeypatch.setattr(served, "_load", lambda settings, **_: (tried.append(settings), Loaded("bad"))[1])
    assert not served.refresh()
    assert tried == [], "not again so soon"
    monkeypatch.setattr(module, "RETRY_S", 0.0)
    monkeypatch.setattr(served, "_retry_at", 0.0)
    assert served.refresh()
    assert served.facts()["refused"] is None


def test_a_pointer_to_nothing_is_survived(root: Path) -> None:
    served = serve(root)
    (root / "CURRENT").write_text("nothing\n")
    assert not served.refresh()
    assert served.facts()["refused"]["version"] == ""
    (root / "CURRENT").write_text("v1\n")
    assert not served.refresh()
    assert served.facts()["refused"] is None


def test_a_pinned_version_stays(root: Path) -> None:
    served = serve(root, "v2")
    assert not served.refresh()
    assert served.facts()["model_version"] == "v2"


def test_without_a_first_version_there_is_nothing_to_serve(root: Path) -> None:
    def missing(settings: Settings) -> Loaded:
        raise WeightsMissingError("None.")

    with pytest.raises(WeightsMissingError):
        ModelHandle(Settings(), missing)  # type: ignore[arg-type]
