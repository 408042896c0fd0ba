"""The gate of promotion: may a candidate be served? Its figures on every golden set decide, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from utils.feedback.golden import GoldenFigures

HELP = "Labels of more media, real ones and fakes, may help, and so may rejecting doubtful labels."


@dataclass(frozen=True)
class GateRules:
    """How much worse a candidate may be; each bound holds against the version in use *and* against the base.

    Args:
        auc: AUC may fall by this much.
        ece: the expected calibration error may rise by this much.
        slice_loss: AUC of any slice may fall by this much.
    """

    auc: float = 0.003
    ece: float = 0.01
    slice_loss: float = 0.02


@dataclass(frozen=True)
class GateVerdict:
    """The decision about a candidate.

    Args:
        promoted: it may be served.
        code: `promoted`, or the first rule that it broke: `auc`, `ece`, `slice`, `no_correction`.
        reason: for people, with the numbers.
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


def judge_candidate(compared: Sequence[Compared], corrected: int, rules: GateRules | None = None) -> GateVerdict:
    """Decide about a candidate.

    Comparing with the base too is what stops many small steps, each within the bounds, from adding up.

    Args:
        compared: one entry per golden set, the shipped one among them.
        corrected: accepted corrections that the version in use gets wrong and the candidate right.
        rules: bounds.
    """
    rules = rules or GateRules()
    for entry in compared:
        for what, reference in (("the version in use", entry.old), ("the base", entry.base)):
            broken = _broken(entry.new, reference, rules)
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


def _broken(new: GoldenFigures, old: GoldenFigures, rules: GateRules) -> tuple[str, str] | None:
    """Code and sentence of the first rule that is broken; comparisons are written so that NaN breaks them."""
    if not new.auc >= old.auc - rules.auc:
        return "auc", f"the AUC fell from {old.auc:.4f} to {new.auc:.4f} (allowed: {rules.auc:g})"
    if not new.ece <= old.ece + rules.ece:
        return "ece", f"the calibration error rose from {old.ece:.4f} to {new.ece:.4f} (allowed: {rules.ece:g})"
    for name, before in old.slices.items():
        after = new.slices.get(name, math.nan)
        if not after >= before - rules.slice_loss:
            return "slice", f"the slice {name} fell from {before:.4f} to {after:.4f} (allowed: {rules.slice_loss:g})"
    return None
