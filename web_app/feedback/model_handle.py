"""The version of the weights that a worker has loaded, and the change to another one between two jobs.

`CURRENT` may name another version at any time: after a promotion, a rollback, or by hand. The worker looks at it before
each job. A version that cannot be verified or loaded is refused; the loaded one keeps serving, and the worker says why.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.config import Settings
from utils.errors import WeightsError
from utils.log import get_logger
from utils.weights import current_name, current_speech, weights_root

if TYPE_CHECKING:
    from utils.detection.pipeline import Analyser

RETRY_S = 30.0  # a refused version is tried again this much later; it may have been repaired

log = get_logger(__name__)


class ModelHandle:
    """An analyser and its replacement.

    Args:
        settings: name the folder of weights; `[weights] version` pins one of faces, and of voices the base.
        load: makes the analyser for what `CURRENT` names now, from settings and, at a change, the one that is `loaded`.

    Raises:
        WeightsError: the first version cannot be loaded; there is nothing to keep serving.
    """

    def __init__(self, settings: Settings, load: Callable[..., Analyser]) -> None:
        self._settings = settings
        self._load = load
        self._root: Path = weights_root(settings)
        self._refused: tuple[str, str] | None = None
        self._retry_at = 0.0
        self._changes = 0
        self.analyser = load(settings)

    def refresh(self) -> bool:
        """Change to the version that `CURRENT` names, if it is another one; returns whether that happened.

        A version of speech that is refused does not keep one of faces from being taken.
        """
        name = ""
        try:
            name, speech = self._settings.weights.version or current_name(self._root), current_speech(self._settings)
            same = name == self.analyser.version
            if same and speech == self.speech:
                self._refused = None
                return False
            name += f", {speech}" if same else ""
            if self._refused is not None and self._refused[0] == name and time.monotonic() < self._retry_at:
                return False
            try:
                self.analyser = self._load(self._settings, loaded=self.analyser)
            except WeightsError:
                if same:
                    raise
                self.analyser = self._load(self._settings, loaded=self.analyser, speech=self.speech)
        except WeightsError as error:
            if self._refused is None or self._refused[0] != name:
                log.error("version %s is refused, %s keeps serving: %s", name or "?", self.analyser.version, error)
            self._refused, self._retry_at = (name, str(error)), time.monotonic() + RETRY_S
            return False
        self._refused = None
        self._changes += 1
        log.info("the worker serves version %s now", ", ".join(filter(None, (self.analyser.version, self.speech))))
        return True

    @property
    def speech(self) -> str | None:
        """The version of speech that is loaded; None without one."""
        return None if self.analyser.speech is None else self.analyser.speech.version.name

    def facts(self) -> dict[str, Any]:
        """What is loaded, for `/api/ready` and the statistics; `refused` names a version it did not take, and why."""
        refused = self._refused
        return {
            "model_version": self.analyser.version,
            "model_sha256": self.analyser.version_sha256,
            "speech_version": self.speech,
            "experts": list(self.analyser.experts),
            "missing": dict(self.analyser.missing),
            "engine": self.analyser.engine.name,
            "precisions": dict(self.analyser.engine.precisions),
            "changes": self._changes,
            "refused": None if refused is None else {"version": refused[0], "reason": refused[1]},
        }
