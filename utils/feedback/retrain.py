"""Learning from feedback, from accepted items to a candidate that is promoted or rejected. The worker calls this.

    items -> what the base shall remember -> golden-set gate -> immutable version -> history -> CURRENT

`utils.feedback.items` made the items' features beforehand; pictures are not needed here.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from utils.detection.remembered import Remembered
from utils.errors import NothingNewError
from utils.feedback.acceptance import Compared, GateVerdict, judge_candidate
from utils.feedback.cached_judge import CachedJudge, load_parts, logits_of, probabilities
from utils.feedback.corrections import DAMAGED, STALE, borders, load_items, right_verdicts
from utils.feedback.feature_set import FeatureSet, join_features, pseudonym
from utils.feedback.golden import GoldenFigures, Lineage, figures, known_again, load_lineage
from utils.feedback.history import append_training, read_history
from utils.feedback.quarantine import LearningItem
from utils.feedback.remember import Learned, Progress, Recipe, remember
from utils.feedback.versions import (
    activate,
    learning_lock,
    lineage_of,
    next_name,
    pointer_lock,
    publish_candidate,
    recover_locked,
)
from utils.metrics import logit
from utils.weights import Version, current_name, frozen_fingerprint, verify_version


@dataclass(frozen=True, kw_only=True)
class TrainingOutcome:
    """What a training did.

    Args:
        version: the candidate's name.
        base: the trained version that it started from.
        parent: the version in use that it was compared with.
        promoted: it is served now.
        code: `promoted` or the rule that it broke (`auc`, `ece`, `slice`, `no_correction`), or `moved`: another version
            was put in use meanwhile, with which it was not compared.
        reason: for people.
        golden: name of the shipped golden set.
        old: figures of the version in use on it.
        new: figures of the candidate.
        improvements: accepted items that the version in use gets wrong and the candidate right, at 50 %.
        regressions: the other way round.
        loss: mean log loss on the accepted items, of the candidate.
        accuracy_before: on the accepted items, of the version in use.
        accuracy_after: of the candidate.
        distance: root mean square of how far the logits on unseen parts of the replay buffer were moved.
        items: learned from.
        stale: left out because their features were made with other networks; prepare them again.
        held_out: left out because they are in a golden set.
        steps: reaches that were tried, the largest first.
        damaged: left out because their features cannot be read.
        seconds: in all.
        job: id of the job that asked for it.
        digest: fingerprint of what it learned from, by whoever asked.
        lost: accepted items that the version in use judges right, by its verdict, and the candidate does not;
            pseudonyms of the files.
    """

    version: str
    base: str
    parent: str
    promoted: bool
    code: str
    reason: str
    golden: str
    old: GoldenFigures
    new: GoldenFigures
    improvements: int
    regressions: int
    loss: float
    accuracy_before: float
    accuracy_after: float
    distance: float
    items: int
    stale: int
    held_out: int
    damaged: int = 0
    steps: int
    seconds: float
    job: str = ""
    digest: str = ""
    lost: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        rounded = {k: round(v, 6) if isinstance(v, float) else v for k, v in plain.items()}
        return rounded | {"old": self.old.to_dict(), "new": self.new.to_dict(), "lost": list(self.lost)}

    @classmethod
    def of_entry(cls, entry: Mapping[str, Any]) -> TrainingOutcome:
        """The outcome that a line of the history tells."""
        plain = {f.name: entry[f.name] for f in dataclasses.fields(cls) if f.name in entry}
        figures_of = {name: GoldenFigures(**entry[name]) for name in ("old", "new")}
        return cls(**plain | figures_of | {"lost": tuple(entry.get("lost", ()))})


@dataclass(frozen=True)
class Candidate:
    """The base with what it shall remember, which nobody serves yet, and what the gate says of it.

    `before` and `after` are which accepted items are right at 50 % by the version in use and by the candidate; `lost`
    are the keys of those whose verdict was right and is not any more.
    """

    parts: CachedJudge
    learned: Learned
    verdict: GateVerdict
    compared: tuple[Compared, ...]
    before: np.ndarray[Any, np.dtype[np.bool_]]
    after: np.ndarray[Any, np.dtype[np.bool_]]
    lost: tuple[str, ...]
    loss: float


def make_candidate(
    feedback: FeatureSet,
    lineage: Lineage,
    parent: Version,
    recipe: Recipe,
    progress: Progress | None = None,
) -> Candidate:
    """Let the base of a lineage remember feedback and the golden sets judge it; nothing is written.

    Args:
        feedback: accepted items with their actual labels, all of them and not only the new ones.
        lineage: base, golden sets, replay.
        parent: the version in use; the base itself or one that learned from it.
        recipe: how.
        progress: told now and then; what it raises ends the training.
    """
    base, old = load_parts(lineage.base), load_parts(parent)
    low, high = (logit(border) for border in borders(lineage.base))
    said, before = (logits_of(base, each) for each in (feedback, lineage.replay))
    learned = remember(feedback, said, lineage.replay, before, recipe, (low, high), progress)
    new = CachedJudge(base.head, base.gate, learned.remembered)
    if progress is not None:
        progress("judge", 0.0)
    compared = tuple(
        Compared(g.name, *(figures(g.features, probabilities(p, g.features)) for p in (base, old, new)))
        for g in lineage.golden
    )
    scores = [probabilities(parts, feedback) for parts in (old, new)]
    held = [right_verdicts(feedback.labels, each, lineage.base) for each in scores]
    lost = tuple(feedback.keys[i] for i in np.flatnonzero(held[0] & ~held[1]))
    right = [(each >= 0.5) == (feedback.labels > 0.5) for each in scores]
    verdict = judge_candidate(compared, int((~held[0] & held[1]).sum()))
    of_label = np.where(feedback.labels > 0.5, scores[1], 1 - scores[1])
    loss = float(-np.log(np.maximum(of_label, 1e-12)).mean())
    return Candidate(new, learned, verdict, compared, right[0], right[1], lost, loss)


def train_version(
    items: Sequence[LearningItem],
    root: Path,
    history: Path,
    *,
    own_golden: Path | None = None,
    recipe: Recipe | None = None,
    progress: Progress | None = None,
    job: str = "",
    digest: str = "",
) -> TrainingOutcome:
    """Learn from accepted feedback and promote the candidate if the golden sets allow it.

    What a killed training left is put right first. If that was the same job's and its candidate is there already,
    its outcome is given and nothing is learned again.

    Args:
        items: all accepted items so far. Every training starts at the base again, so what is no longer among them is
            forgotten.
        root: the folder with the versions.
        history: path of the training history.
        own_golden: folder with the user's own golden sets.
        recipe: how; None takes that of the trained version.
        progress: told now and then; what it raises ends the training and nothing is published.
        job: id of the job that asks for it; empty for none.
        digest: fingerprint of the items, kept in the history.

    Raises:
        ConflictError: another training is going on.
        NothingNewError: no item can be learned from.
        TrainingDataError: the version in use has no golden set, or features are damaged.
        WeightsError: versions are missing or damaged.
    """
    started = time.monotonic()
    with learning_lock(root):
        recover_locked(root, history)
        earlier = _outcome_of(history, job) if job else None
        if earlier is not None:
            return earlier
        parent = verify_version(root, current_name(root))
        base = verify_version(root, lineage_of(parent))
        how = recipe or Recipe.of_card(base.card)
        lineage = load_lineage(base, own_golden)
        feedback, left_out = gather(items, lineage)
        done = make_candidate(feedback, lineage, parent, how, progress)
        name, shipped = next_name(root, base.name), done.compared[0]
        outcome = TrainingOutcome(
            version=name,
            base=base.name,
            parent=parent.name,
            promoted=done.verdict.promoted,
            code=done.verdict.code,
            reason=done.verdict.reason,
            golden=shipped.name,
            old=shipped.old,
            new=shipped.new,
            improvements=int((~done.before & done.after).sum()),
            regressions=int((done.before & ~done.after).sum()),
            loss=done.loss,
            accuracy_before=float(done.before.mean()),
            accuracy_after=float(done.after.mean()),
            distance=done.learned.moved,
            items=len(feedback),
            stale=left_out.stale,
            held_out=left_out.held_out,
            damaged=left_out.damaged,
            steps=done.learned.steps,
            seconds=round(time.monotonic() - started, 3),
            job=job,
            digest=digest,
            lost=tuple(sorted({pseudonym(key) for key in done.lost})),
        )
        if progress is not None:
            progress("publish", 0.0)
        return _publish(root, history, base, done.learned.remembered, outcome, how)


def _outcome_of(history: Path, job: str) -> TrainingOutcome | None:
    """What a job has brought about already, for one whose worker was killed before it could tell."""
    for entry in reversed(read_history(history).entries):
        if entry["event"] == "training" and entry.get("job") == job:
            return TrainingOutcome.of_entry(entry)
    return None


def _publish(
    root: Path, history: Path, base: Version, remembered: Remembered, outcome: TrainingOutcome, recipe: Recipe
) -> TrainingOutcome:
    """Write the candidate and its line, and serve it if it passed and what it was compared with is still in use."""
    with pointer_lock(root):  # from the comparison to the last line, so that no rollback comes in between
        current = current_name(root)
        if outcome.promoted and current != outcome.parent:
            reason = (
                f"The version in use changed from {outcome.parent} to {current} during the training, and the candidate "
                "was not compared with that one."
            )
            outcome = dataclasses.replace(outcome, promoted=False, code="moved", reason=reason)
        entry = {"event": "training", **outcome.to_dict(), "settings": dataclasses.asdict(recipe)}
        publish_candidate(root, outcome.version, base, remembered.arrays(), entry)
        append_training(history, entry)
        if outcome.promoted:
            activate(root, outcome.version, history, "promotion")
    return outcome


@dataclass(frozen=True)
class LeftOut:
    """How many accepted items cannot be learned from.

    Args:
        stale: made with other networks.
        held_out: in a golden set.
        damaged: cannot be read.
    """

    stale: int
    held_out: int
    damaged: int


def gather(items: Sequence[LearningItem], lineage: Lineage) -> tuple[FeatureSet, LeftOut]:
    """The features of items that can be learned from, and how many cannot.

    Raises:
        NothingNewError: none is left.
    """
    usable, reasons = load_items(items, frozen_fingerprint(lineage.base))
    counts = Counter(reasons)
    stale, damaged, held_out = counts[STALE], counts[DAMAGED], 0
    if usable:
        joined = join_features(usable)
        golden = np.any([known_again(joined, each) for each in lineage.golden], axis=0)
        held_out = int(golden.sum())
    if held_out == len(usable):
        why = (
            f" {stale} were made with other networks, {held_out} belong to a golden set, {damaged} are damaged."
            if items
            else ""
        )
        raise NothingNewError(f"No accepted item can be learned from.{why}")
    return joined.select(~golden), LeftOut(stale, held_out, damaged)
