"""What users get of sources and generators that no training has seen: the table that a broad training is judged by.

Each validation picture is scored by a ViT head that has not seen its source, or its generator; gate, calibration and
band are those of the version, which come from such scores of other pictures.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import numpy.typing as npt

from models.cards import EXPERT_NAMES
from models.gating import Gate
from utils.detection.calibration import Calibration
from utils.evaluation.score_file import ScoreTable
from utils.metrics import auc, bootstrap, ece, false_alarm_rate
from utils.training.gate_fit import gate_logits, sigmoid
from utils.training.holdout import GENERATOR, SOURCE, LeftOut, share_between, share_missed

Array = npt.NDArray[np.float64]
LEAST = 8
"""Sources with fewer real or fake validation pictures, and generators with fewer, have no row."""
ROUNDS = 300


def with_vit(table: ScoreTable, logits: Array) -> ScoreTable:
    """The table with other logits of the ViT, where they are known."""
    raw, column = table.logits.copy(), EXPERT_NAMES.index("vit")
    raw[:, column] = np.where(np.isnan(logits), raw[:, column], logits)
    return ScoreTable(
        table.names, table.kinds, table.labels, table.sources, table.generators, table.groups, raw, table.quality
    )


def stranger_rows(
    val: ScoreTable, by_source: Array, by_generator: Mapping[str, Array], gate: Gate, calibration: Calibration
) -> list[LeftOut]:
    """One row per source, and per generator, of the validation pictures.

    Sources of fakes alone are measured beside all real pictures.

    Args:
        val: scores of the validation pictures by the version.
        by_source: (N,) the ViT's logits by heads that have not seen the picture's source.
        by_generator: for each generator (N,) logits of a head that has not seen it.
        gate: of the version.
        calibration: of the version.
    """

    def probabilities(logits: Array) -> Array:
        return sigmoid(gate_logits(gate, with_vit(val, logits)))

    known, unseen = sigmoid(gate_logits(gate, val)), probabilities(by_source)
    sources, generators, real = np.asarray(val.sources), np.asarray(val.generators), val.labels <= 0.5
    cases: list[tuple[str, str, npt.NDArray[np.bool_], Array]] = []
    for source in np.unique(sources):
        fakes, reals = (sources == source) & ~real, (sources == source) & real
        if reals.sum() < LEAST:
            reals = real if fakes.sum() >= LEAST else np.zeros(len(real), bool)
        cases.append((SOURCE, str(source), reals | fakes, unseen))
    for generator, logits in sorted(by_generator.items()):
        fakes = generators == generator
        beside = real & np.isin(sources, np.unique(sources[fakes]))
        cases.append((GENERATOR, generator, fakes | (beside if beside.sum() >= LEAST else real), probabilities(logits)))
    groups = np.asarray(val.groups)
    return [
        _row(kind, name, val.labels[chosen], known[chosen], scores[chosen], groups[chosen].tolist(), calibration)
        for kind, name, chosen, scores in cases
        if max((val.labels[chosen] > 0.5).sum(), (kind == SOURCE) * (val.labels[chosen] <= 0.5).sum()) >= LEAST
    ]


def _row(
    kind: str, name: str, labels: Array, known: Array, unseen: Array, groups: list[str], calibration: Calibration
) -> LeftOut:
    real_below, fake_above = calibration.band(0.5, missing=0)
    both = len(np.unique(labels)) == 2
    measure = partial(bootstrap, rounds=ROUNDS)
    return LeftOut(
        kind=kind,
        name=name,
        real=int((labels == 0).sum()),
        fake=int((labels == 1).sum()),
        auc_known=measure(auc, labels, known, groups) if both else None,
        auc_unseen=measure(auc, labels, unseen, groups) if both else None,
        ece_unseen=measure(ece, labels, unseen, groups) if both else None,
        alarms_known=measure(false_alarm_rate, labels, known, groups),
        alarms_unseen=measure(false_alarm_rate, labels, unseen, groups),
        called_fake=measure(partial(false_alarm_rate, threshold=fake_above), labels, unseen, groups),
        undecided=measure(partial(share_between, low=real_below, high=fake_above), labels, unseen, groups),
        called_real=measure(partial(share_missed, at=real_below), labels, unseen, groups) if both else None,
    )
