"""The worker's way into the learning core; the only file of the server that loads `utils.feedback.retrain`.

Heavy imports stand inside the functions: the module itself may be imported anywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.config import Settings
from utils.errors import ConflictError, TrainingDataError
from utils.feedback.versions import prune_rejected, recover
from utils.log import get_logger
from utils.weights import weights_root
from web_app.feedback.features import Prepared
from web_app.feedback.tasks import LearningDuties
from web_app.feedback.training import AcceptedItem, Order, Progress
from web_app.paths import InstancePaths

if TYPE_CHECKING:
    from web_app.feedback.model_handle import ServedVersion

log = get_logger(__name__)
KEPT_REJECTED = 5
"""Candidates that the golden sets rejected are deleted beyond so many, the oldest first."""


def learning_duties(settings: Settings, served: ServedVersion) -> LearningDuties:
    """The learning's part of a worker, over the real networks.

    Args:
        settings: the whole configuration.
        served: what the worker has loaded.
    """
    from utils.feedback.feature_set import CachedItem
    from utils.fingerprint import frozen_fingerprint
    from utils.weights import verify_version

    root, paths = weights_root(settings), InstancePaths.of(settings)
    known: dict[str, str] = {}

    # what imports torch does so when it is first needed: most workers never learn, and torch takes 500 MB
    def prepare(path: Path, face: int | None) -> Prepared:
        from utils.feedback.items import prepare_item

        return prepare_item(path, served.analyser, face=face)

    def fingerprint() -> str:
        name = served.analyser.version
        if name not in known:
            known[name] = frozen_fingerprint(verify_version(root, name))
        return known[name]

    def train(items: Sequence[AcceptedItem], progress: Progress, order: Order) -> dict[str, Any]:
        from utils.feedback.retrain import LearnItem, train_version

        learned = [
            LearnItem(
                detection_id=str(item.row_id),
                media_sha256=item.media_sha256,
                path=None,
                label=1 if item.label else 0,
                source=f"user {hashlib.sha256(item.user.encode()).hexdigest()[:12]}",
                features=item.features,
            )
            for item in items
        ]
        outcome = train_version(
            learned,
            root,
            paths.training_history,
            own_golden=paths.golden,
            progress=progress,
            job=order.job,
            digest=order.digest,
        )
        for name in prune_rejected(root, KEPT_REJECTED):
            log.info("the rejected candidate %s is deleted", name)
        return outcome.to_dict()

    def readable(path: Path) -> bool:
        try:
            CachedItem.load(path).as_features(label=0, source="", key="")
        except (TrainingDataError, ValueError):
            return False
        return True

    return LearningDuties(settings, prepare, fingerprint, train, readable)


def recover_versions(settings: Settings) -> None:
    """Finish or undo what a killed worker left of a training or a promotion."""
    root = weights_root(settings)
    if not root.is_dir():
        return  # loading says what is missing
    try:
        recover(root, InstancePaths.of(settings).training_history)
    except ConflictError:
        log.info("another worker trains at the moment; it leaves nothing to put right")
    except PermissionError as error:
        log.warning("the folder of weights cannot be written, so nothing can be learned: %s", error)
