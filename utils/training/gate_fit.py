"""Fit the gate: calibrate each expert, then learn how to mix them, then one temperature for the mixture.

Everything is fitted on the calibration split, which no expert was trained on. The gate stays close to the plain mean
of the calibrated experts: how far it may leave it (the L2 penalty) is chosen by leaving whole groups out.

Degraded pictures shape the mixture; how sure it may be is fitted on those that are as they come, where that is known: a
temperature for both makes it too cautious for the one and too bold for the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional

from models.gating import Gate
from utils.evaluation.score_file import ScoreTable
from utils.metrics import ece

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
PENALTIES = (0.01, 0.1, 1.0, 10.0)
FOLDS = 5


@dataclass(frozen=True)
class GateFit:
    """A fitted gate and how it was chosen.

    Args:
        penalty: the chosen L2 penalty; infinite when the plain mean was better.
        losses: cross-validated loss per penalty, `mean` for the plain mean.
        ece_before: of the plain mean of raw logits on the calibration data that are as they come.
        ece_after: of the calibrated ensemble on the same, cross-validated.
        ece_degraded: the same on the others; NaN without others.
        held_out: (N,) logits of the ensemble, each from a gate that was fitted without this item's group. Intervals and
            the undecided band come from these: the gate's own fit would make them too narrow.
    """

    gate: Gate
    penalty: float
    losses: dict[str, float]
    ece_before: float
    ece_after: float
    ece_degraded: float
    held_out: Array


def balance_weights(table: ScoreTable) -> Array:
    """(N,) weights with mean 1: real and fake count alike, and a source by the root of its size."""
    keys = [f"{s}|{int(label)}" for s, label in zip(table.sources, table.labels, strict=True)]
    _, codes, counts = np.unique(keys, return_inverse=True, return_counts=True)
    # were all sources to count alike, those of a few clips would weigh as much as those of thousands of pictures
    weights = 1 / np.sqrt(counts[codes])
    for label in (0.0, 1.0):
        chosen = table.labels == label
        if chosen.any():
            weights[chosen] /= weights[chosen].sum()
    return np.asarray(weights * len(table) / weights.sum())


def platt(logits: Array, labels: Array, weights: Array, *, ridge: float = 1e-3) -> tuple[float, float]:
    """Scale and shift that make raw logits calibrated; the scale is never negative.

    `ridge` times the squares of both counts beside the mean loss; weights have the mean 1.

    Source: Platt 1999, "Probabilistic Outputs for Support Vector Machines", without its label smoothing.
    """
    both = np.stack([logits, np.ones(len(logits))], axis=1)
    fitted = LogisticRegression(C=1 / (2 * ridge * len(labels)), fit_intercept=False, tol=1e-8, max_iter=1000)
    scale, shift = (float(v) for v in fitted.fit(both, labels, sample_weight=weights).coef_[0])
    if scale > 0:
        return scale, shift
    # an expert that points the wrong way says nothing; its shift belonged to the negative scale
    fakes, reals = float((weights * labels).sum()), float((weights * (1 - labels)).sum())
    return 0.0, float(np.log(fakes / reals))


def fit_gate(table: ScoreTable, *, as_come: Mask | None = None, together: Sequence[str] | None = None) -> GateFit:
    """Fit a gate on a table of held-out scores.

    Args:
        as_come: (N,) which of them were not degraded; None for all.
        together: N names that the folds keep together; None for the groups.
    """
    folds = _group_folds(table.groups if together is None else together)
    weights = balance_weights(table)
    plain = np.ones(len(table), bool) if as_come is None else as_come
    losses: dict[str, float] = {}
    held_out: dict[str, Array] = {}
    for penalty in (*PENALTIES, float("inf")):
        out = np.zeros(len(table))
        for fold in range(FOLDS):
            inside, outside = folds != fold, folds == fold
            if outside.any() and len(np.unique(table.labels[inside & plain])) == 2:
                gate = _fit_once(table.select(inside), penalty, plain[inside])
                out[outside] = gate_logits(gate, table.select(outside))
        name = "mean" if np.isinf(penalty) else f"{penalty:g}"
        held_out[name] = out
        signed = np.where(table.labels > 0.5, out, -out)
        losses[name] = float((np.logaddexp(0, -signed) * weights).mean())
    best = min(losses, key=lambda k: losses[k])
    penalty = float("inf") if best == "mean" else float(best)
    raw = np.nanmean(table.logits, axis=1)

    def ece_of(logits: Array, chosen: Mask) -> float:
        return ece(table.labels[chosen], expit(logits[chosen])) if chosen.any() else float("nan")

    return GateFit(
        gate=_fit_once(table, penalty, plain),
        penalty=penalty,
        losses={k: round(v, 5) for k, v in losses.items()},
        ece_before=ece_of(raw, plain),
        ece_after=ece_of(held_out[best], plain),
        ece_degraded=ece_of(held_out[best], ~plain),
        held_out=held_out[best],
    )


def gate_logits(gate: Gate, table: ScoreTable) -> Array:
    """(N,) calibrated logits of the ensemble."""
    with torch.inference_mode():
        output = gate(torch.tensor(table.logits, dtype=torch.float32), torch.tensor(table.quality, dtype=torch.float32))
    return np.asarray(output.logit.double().numpy())


def _fit_once(table: ScoreTable, penalty: float, plain: Mask) -> Gate:
    experts, quality = table.logits.shape[1], table.quality.shape[1]
    gate = Gate(experts=experts, quality=quality)
    weights = balance_weights(table)
    with torch.no_grad():
        for e in range(experts):
            known = ~np.isnan(table.logits[:, e])
            if known.sum() >= 10 and len(np.unique(table.labels[known])) == 2:
                # balanced among the items that this expert judges: the LSTM sees clips only
                own = balance_weights(table.select(known))
                scale, shift = platt(table.logits[known, e], table.labels[known], own, ridge=1.0 / known.sum())
                gate.scale[e], gate.shift[e] = scale, shift
        gate.quality_mean.copy_(torch.tensor(table.quality.mean(0), dtype=torch.float32))
        gate.quality_std.copy_(torch.tensor(table.quality.std(0) + 1e-3, dtype=torch.float32))
    logits = torch.tensor(table.logits, dtype=torch.float32)
    measured = torch.tensor(table.quality, dtype=torch.float32)
    labels = torch.tensor(table.labels, dtype=torch.float32)
    w = torch.tensor(weights, dtype=torch.float32)
    if np.isfinite(penalty):
        optimizer = torch.optim.LBFGS(gate.mix.parameters(), max_iter=200, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            z = gate(logits, measured).logit
            loss = (functional.binary_cross_entropy_with_logits(z, labels, reduction="none") * w).mean()
            size = gate.mix.weight.square().sum() + gate.mix.bias.square().sum()
            loss = loss + penalty / len(labels) * size
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        mixed = gate(logits, measured).logit.double().numpy()
        # balanced among themselves: a source whose fakes are all degraded would shift the rest
        scale, shift = platt(mixed[plain], table.labels[plain], balance_weights(table.select(plain)))
        gate.temperature.fill_(scale)
        gate.offset.fill_(shift)
    return gate.eval()


def _group_folds(groups: Sequence[str]) -> npt.NDArray[np.int64]:
    names, codes = np.unique(np.asarray(groups), return_inverse=True)
    of_group = np.random.default_rng(0).permutation(len(names)) % FOLDS
    return np.asarray(of_group[codes], np.int64)
