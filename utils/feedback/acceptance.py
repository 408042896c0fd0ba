"""The gate of promotion: may a candidate be served? Its figures on every golden set decide, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from utils.feedback.golden import Bounds, GoldenFigures

HELP = "Labels of more media, real ones and fakes, may help, and so may rejecting doubtful labels."
BOUNDS = Bounds(auc=0.003, ece=0.01, slice_loss=0.02)
"""Of a candidate, against the version in use *and* against the base."""


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
