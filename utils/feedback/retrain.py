"""Learning from feedback, from accepted items to a candidate that is promoted or rejected. The worker calls this.

    items -> what the base shall remember -> golden-set gate -> immutable version -> history -> CURRENT

`utils.feedback.items` made the items' features beforehand; pictures are not needed here. Whether a candidate may be
served its figures on every golden set decide, and nothing else (`judge_candidate`).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from utils.detection.remembered import Remembered
from utils.errors import NothingNewError
from utils.feedback.cached_judge import (
    DAMAGED,
    STALE,
    CachedJudge,
    borders,
    load_items,
    load_parts,
    logits_of,
    probabilities,
    right_verdicts,
)
from utils.feedback.feature_set import FeatureSet, join_features, pseudonym
from utils.feedback.golden import Bounds, GoldenFigures, Lineage, known_again, load_lineage, score_golden
from utils.feedback.history import append_training, read_history
from utils.feedback.quarantine import LearningItem
from utils.feedback.remember import Learned, Progress, Recipe, remember
from utils.feedback.versions import (
    activate,
    learning_lock,
    next_name,
    pointer_lock,
    publish_candidate,
    recover_locked,
)
from utils.metrics import logit
from utils.weights import Version, current_name, frozen_fingerprint, verify_version

Outcome = dict[str, Any]
"""What a training did, as plain JSON values; the line of the history holds the same.

`version` is the candidate's name, `base` the trained version that it started from, `parent` the version in use that it
was compared with. `promoted` says whether it is served now; `code` is `promoted`, the rule that it broke (`auc`, `ece`,
`slice`, `no_correction`), or `moved`: another version was put in use meanwhile; `reason` says it for people. `old` and
`new` are the figures of the version in use and of the candidate on the shipped `golden` set. `items` were learned from;
`stale`, `held_out` and `damaged` ones were left out (made with other networks, in a golden set, unreadable). Of those
learned from, `improvements` are the ones that the version in use gets wrong and the candidate right, at 50 %,
`regressions` the other way round, `accuracy_before` and `accuracy_after` the shares that are right, `loss` the
candidate's mean log loss; `lost` are pseudonyms of the files whose verdict was right and is not any more. `distance` is
how far the logits on unseen parts of the replay buffer were moved, as root mean square; `steps` are the reaches that
were tried. `job` is the id of the job that asked for it, `digest` its fingerprint of what was learned from.
"""
LINE_FIELDS = frozenset({"event", "settings", "recovered", "schema_version", "number", "time", "previous", "hash"})
"""What the line of the history has beside the outcome."""
HELP = "Labels of more media, real ones and fakes, may help, and so may rejecting doubtful labels."
BOUNDS = Bounds(auc=0.003, ece=0.01, slice_loss=0.02)
"""Of a candidate, against the version in use *and* against the base."""


class GateVerdict(NamedTuple):
    """The decision about a candidate: whether it may be served, `promoted` or the first rule that it broke (`auc`,
    `ece`, `slice`, `no_correction`), and the reason for people, with the numbers.
    """

    promoted: bool
    code: str
    reason: str


@dataclass(frozen=True)
class Compared:
    """Figures on one golden set: of the base, of the version in use (`old`) and of the candidate (`new`)."""

    name: str
    base: GoldenFigures
    old: GoldenFigures
    new: GoldenFigures


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
    feedback: FeatureSet, lineage: Lineage, parent: Version, recipe: Recipe, progress: Progress | None = None
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
        Compared(golden.name, *(score_golden(parts, golden) for parts in (base, old, new))) for golden in lineage.golden
    )
    scores = [probabilities(parts, feedback) for parts in (old, new)]
    held = [right_verdicts(feedback.labels, each, lineage.base) for each in scores]
    lost = tuple(feedback.keys[i] for i in np.flatnonzero(held[0] & ~held[1]))
    right = [(each >= 0.5) == (feedback.labels > 0.5) for each in scores]
    verdict = judge_candidate(compared, int((~held[0] & held[1]).sum()))
    of_label = np.where(feedback.labels > 0.5, scores[1], 1 - scores[1])
    loss = float(-np.log(np.maximum(of_label, 1e-12)).mean())
    return Candidate(new, learned, verdict, compared, right[0], right[1], lost, loss)


def judge_candidate(compared: Sequence[Compared], corrected: int, bounds: Bounds = BOUNDS) -> GateVerdict:
    """Decide about a candidate.

    Comparing with the base too is what stops many small steps, each within the bounds, from adding up.

    Args:
        compared: one entry per golden set, the shipped one among them.
        corrected: accepted corrections that the version in use gets wrong and the candidate right.
    """
    for entry in compared:
        for what, reference in (("the version in use", entry.old), ("the base", entry.base)):
            broken = bounds.broken(entry.new, reference)
            if broken is not None:
                code, sentence = broken
                reason = f"On the golden set {entry.name} {sentence} against {what}. {HELP}"
                return GateVerdict(False, code, reason)
    if corrected < 1:
        return GateVerdict(False, "no_correction", f"None of the accepted corrections became right. {HELP}")
    plural = "correction is" if corrected == 1 else "corrections are"
    return GateVerdict(
        True, "promoted", f"{corrected} accepted {plural} now right, and the golden set kept its bounds."
    )


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
) -> Outcome:
    """Learn from accepted feedback and promote the candidate if the golden sets allow it.

    What a killed training left is put right first. If that was the same job's and its candidate is there already,
    its outcome is given and nothing is learned again.

    Args:
        items: all accepted items so far. Every training starts at the base again, so what is no longer among them is
            forgotten.
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
        base = verify_version(root, parent.base)
        how = recipe or Recipe.of_card(base.card)
        lineage = load_lineage(base, own_golden)
        feedback, left_out = gather(items, lineage)
        done = make_candidate(feedback, lineage, parent, how, progress)
        name, shipped = next_name(root, base.name), done.compared[0]
        outcome = {
            "version": name,
            "base": base.name,
            "parent": parent.name,
            "promoted": done.verdict.promoted,
            "code": done.verdict.code,
            "reason": done.verdict.reason,
            "golden": shipped.name,
            "old": shipped.old.to_dict(),
            "new": shipped.new.to_dict(),
            "improvements": int((~done.before & done.after).sum()),
            "regressions": int((done.before & ~done.after).sum()),
            "loss": round(done.loss, 6),
            "accuracy_before": round(float(done.before.mean()), 6),
            "accuracy_after": round(float(done.after.mean()), 6),
            "distance": round(done.learned.moved, 6),
            "items": len(feedback),
            **left_out,
            "steps": done.learned.steps,
            "seconds": round(time.monotonic() - started, 3),
            "job": job,
            "digest": digest,
            "lost": sorted({pseudonym(key) for key in done.lost}),
        }
        if progress is not None:
            progress("publish", 0.0)
        return _publish(root, history, base, done.learned.remembered, outcome, how)


def _outcome_of(history: Path, job: str) -> Outcome | None:
    """What a job has brought about already, for one whose worker was killed before it could tell."""
    for entry in reversed(read_history(history).entries):
        if entry["event"] == "training" and entry.get("job") == job:
            return {name: value for name, value in entry.items() if name not in LINE_FIELDS}
    return None


def _publish(
    root: Path, history: Path, base: Version, remembered: Remembered, outcome: Outcome, recipe: Recipe
) -> Outcome:
    """Write the candidate and its line, and serve it if it passed and what it was compared with is still in use."""
    with pointer_lock(root):  # from the comparison to the last line, so that no rollback comes in between
        current = current_name(root)
        if outcome["promoted"] and current != outcome["parent"]:
            reason = (
                f"The version in use changed from {outcome['parent']} to {current} during the training, and the "
                "candidate was not compared with that one."
            )
            outcome |= {"promoted": False, "code": "moved", "reason": reason}
        entry = {"event": "training", **outcome, "settings": dataclasses.asdict(recipe)}
        publish_candidate(root, outcome["version"], base, remembered.arrays(), entry)
        append_training(history, entry)
        if outcome["promoted"]:
            activate(root, outcome["version"], history, "promotion")
    return outcome


def gather(items: Sequence[LearningItem], lineage: Lineage) -> tuple[FeatureSet, dict[str, int]]:
    """The features of items that can be learned from, and how many are `stale`, `held_out` and `damaged`.

    Raises:
        NothingNewError: none is left.
    """
    usable, reasons = load_items(items, frozen_fingerprint(lineage.base))
    left_out = {STALE: reasons.count(STALE), "held_out": 0, DAMAGED: reasons.count(DAMAGED)}
    if usable:
        joined = join_features(usable)
        golden = np.any([known_again(joined, each) for each in lineage.golden], axis=0)
        left_out["held_out"] = int(golden.sum())
    if left_out["held_out"] == len(usable):
        why = (
            f" {left_out[STALE]} were made with other networks, {left_out['held_out']} belong to a golden set, "
            f"{left_out[DAMAGED]} are damaged."
        )
        raise NothingNewError(f"No accepted item can be learned from.{why if items else ''}")
    return joined.select(~golden), left_out
