"""What the learning asks of the networks; tests put another in its place.

Media are looked at with what the worker has loaded; what needs torch runs in a process of its own (`process`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.config import Settings
from utils.errors import TrainingDataError
from utils.feedback.quarantine import LearningItem
from utils.feedback.versions import prune_rejected
from utils.log import get_logger
from utils.weights import current_version, verify_version, weights_root
from web_app.feedback.process import Progress, call, check, train
from web_app.paths import InstancePaths

if TYPE_CHECKING:
    from utils.feedback.corrections import Said
    from utils.feedback.items import Prepared
    from web_app.feedback.model_handle import ModelHandle

KEPT_REJECTED = 5
"""Candidates that the golden sets rejected are deleted beyond so many, the oldest first."""

log = get_logger(__name__)


class Learner:
    """Looks at media and trains."""

    def __init__(self, settings: Settings, served: ModelHandle) -> None:
        self._settings, self._served = settings, served
        self._root, self._paths = weights_root(settings), InstancePaths.of(settings)
        self._log = settings.server.log_level, settings.server.log_format
        self._fingerprint = ("", "")

    def look(self, path: Path, faces: Sequence[int | None]) -> Prepared:
        """Look at faces of a file: by their numbers in the report, None for the deciding one."""
        from utils.feedback.items import prepare_faces

        return prepare_faces(path, self._served.analyser, faces)

    def fingerprint(self) -> str:
        """Of the networks that look; features of others are made anew while the file is there."""
        from utils.weights import frozen_fingerprint

        name = self._served.analyser.version
        if name != self._fingerprint[0]:
            self._fingerprint = (name, frozen_fingerprint(verify_version(self._root, name)))
        return self._fingerprint[1]

    def is_whole(self, features: Path) -> bool:
        """Whether a file of features can be learned from."""
        from utils.feedback.feature_set import CachedItem

        try:
            CachedItem.load(features).as_features(label=0, source="", key="")
        except (TrainingDataError, ValueError):
            return False
        return True

    def train(self, items: Sequence[LearningItem], progress: Progress, job: str, digest: str) -> dict[str, Any]:
        """Train a candidate and put it to the golden sets.

        Args:
            job: public id; a second attempt of it gives what the first one brought about.

        Returns:
            The line of the history, which names job and digest; `version` and `promoted` at least.
        """
        outcome: dict[str, Any] = call(
            train, progress, self._log, items=items, root=self._root, history=self._paths.training_history,
            own_golden=self._paths.golden, job=job, digest=digest,
        )  # fmt: skip
        for name in prune_rejected(self._root, KEPT_REJECTED):
            log.info("the rejected candidate %s is deleted", name)
        return outcome

    def check(self, items: Sequence[LearningItem], progress: Progress) -> tuple[str, list[Said]]:
        """The version in use, and what it says of accepted items."""
        version = current_version(self._settings) or ""
        return version, call(check, progress, self._log, items=items, root=self._root, name=version)
