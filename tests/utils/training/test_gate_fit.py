"""The gate finds out which expert is worth what, on made-up experts whose worth is known."""

from __future__ import annotations

import numpy as np
import pytest

from utils.evaluation.score_file import ScoreTable
from utils.metrics import auc, ece
from utils.training import publishing
from utils.training.gate_fit import FOLDS, PENALTIES, _group_folds, balance_weights, fit_gate, gate_logits, platt


def table(columns, labels, *, groups=None, quality=None, sources=None) -> ScoreTable:
    """A table of pictures with these (N,) columns of logits."""
    count = len(labels)
    return ScoreTable(
        names=tuple(f"{i}.png" for i in range(count)),
        kinds=("image",) * count,
        labels=labels,
        sources=sources or ("s",) * count,
        generators=("-",) * count,
        groups=groups or tuple(f"g{i}" for i in range(count)),
        logits=np.stack(columns, 1),
        quality=np.zeros((count, 4)) if quality is None else quality,
    )


def drawn(seed: int, count: int = 300):
    """A generator and labels."""
    rng = np.random.default_rng(seed)
    return rng, (rng.random(count) < 0.5).astype(np.float64)


def good(rng, labels, strength: float = 3.0):
    """Logits that tell fake from real, badly scaled and shifted."""
    return 4 * ((2 * labels - 1) * strength / 2 + rng.normal(0, 1, len(labels))) + 3


def log_loss(logits, labels) -> float:
    return float(np.logaddexp(0, -np.where(labels > 0.5, logits, -logits)).mean())


def probabilities(logits):
    return 1 / (1 + np.exp(-logits))


def test_good_expert_decides_and_noise_does_not_matter():
    rng, labels = drawn(1)
    held = table([good(rng, labels), rng.normal(0, 5, len(labels))], labels)
    fitted = fit_gate(held)
    # what an expert contributes is its weight times its calibrated logit
    assert fitted.gate.scale[0] > 10 * abs(fitted.gate.scale[1])
    rng, labels = drawn(2, 1000)
    fresh = table([good(rng, labels), rng.normal(0, 5, len(labels))], labels)
    mixed = gate_logits(fitted.gate, fresh)
    assert auc(labels, mixed) > auc(labels, fresh.logits[:, 0]) - 0.01
    assert ece(labels, probabilities(mixed)) < 0.06


@pytest.mark.parametrize("seed", range(3))
def test_worthless_experts_hurt_by_a_small_amount_at_most(seed):
    rng, labels = drawn(10 + seed)
    strong, noises = good(rng, labels), [rng.normal(4, 3, len(labels)) for _ in range(3)]
    alone, crowd = fit_gate(table([strong], labels)), fit_gate(table([strong, *noises], labels))
    rng, labels = drawn(20 + seed, 2000)
    strong, noises = good(rng, labels), [rng.normal(4, 3, len(labels)) for _ in range(3)]
    loss_alone = log_loss(gate_logits(alone.gate, table([strong], labels)), labels)
    loss_crowd = log_loss(gate_logits(crowd.gate, table([strong, *noises], labels)), labels)
    assert loss_crowd < loss_alone + 0.03


def test_expert_that_points_the_wrong_way_gets_scale_nought_and_no_say():
    rng, labels = drawn(3)
    inverted = -good(rng, labels) - 20
    fitted = fit_gate(table([good(rng, labels), inverted], labels))
    assert fitted.gate.scale.min() >= 0
    assert fitted.gate.scale[1] == 0
    assert abs(float(fitted.gate.shift[1])) < 0.3, "what is left of it is the prior, which is even here"


def test_platt_of_an_inverted_expert_is_the_weighted_prior():
    labels = np.array([1.0] * 30 + [0.0] * 10)
    scale, shift = platt(5 - labels * 3, labels, np.ones(40))
    assert scale == 0
    assert shift == pytest.approx(np.log(3))


def test_platt_recovers_scale_and_shift():
    rng = np.random.default_rng(0)
    raw = rng.normal(0, 2, 20_000)
    labels = (rng.random(20_000) < probabilities(0.7 * raw - 0.5)).astype(np.float64)
    scale, shift = platt(raw, labels, np.ones(20_000), ridge=1e-6)
    assert (scale, shift) == (pytest.approx(0.7, abs=0.03), pytest.approx(-0.5, abs=0.05))


def test_calibration_is_better_after_than_before():
    rng, labels = drawn(4, 600)
    fitted = fit_gate(table([good(rng, labels), good(rng, labels, 1.0)], labels))
    assert fitted.ece_after < fitted.ece_before / 2
    assert fitted.ece_after < 0.08


def test_gate_learns_which_expert_fits_the_quality():
    """One expert is right for sharp pictures, the other for blurred ones: the plain mean cannot know."""
    rng, labels = drawn(5, 1500)
    sharp = (rng.random(len(labels)) < 0.5).astype(np.float64)
    noise = rng.normal(0, 6, (2, len(labels)))
    first = np.where(sharp == 1, good(rng, labels), noise[0])
    second = np.where(sharp == 0, good(rng, labels), noise[1])
    quality = np.stack([sharp, *rng.normal(0, 1, (3, len(labels)))], 1)
    fitted = fit_gate(table([first, second], labels, quality=quality))
    assert np.isfinite(fitted.penalty)
    assert fitted.losses[f"{fitted.penalty:g}"] < fitted.losses["mean"] - 0.02


def test_penalty_is_that_of_the_least_loss_on_groups_left_out():
    rng, labels = drawn(6, 120)
    fitted = fit_gate(table([good(rng, labels), rng.normal(0, 1, 120)], labels))
    assert set(fitted.losses) == {*(f"{p:g}" for p in PENALTIES), "mean"}
    best = min(fitted.losses, key=lambda k: fitted.losses[k])
    assert fitted.penalty == (float("inf") if best == "mean" else float(best))
    if best == "mean":
        assert float(fitted.gate.mix.weight.detach().abs().sum()) == 0


def test_folds_keep_groups_whole():
    groups = tuple(f"g{i % 17}" for i in range(200))
    folds = _group_folds(groups)
    assert set(folds.tolist()) == set(range(FOLDS))
    for name in set(groups):
        assert len({int(f) for f, g in zip(folds, groups, strict=True) if g == name}) == 1


def test_identity_that_quality_gives_away_is_seen_through_by_leaving_groups_out():
    """Five people, each of one label and with a quality of their own: only the plain mean holds for others."""
    rng = np.random.default_rng(7)
    person = np.arange(200) % 10
    labels = (person % 2).astype(np.float64)
    quality = rng.normal(0, 1, (10, 4))[person] + rng.normal(0, 0.01, (200, 4))
    noise = rng.normal(0, 3, (2, 200))
    columns = [noise[0] + labels, noise[1] - 2 + labels]
    fitted = fit_gate(table(columns, labels, groups=tuple(f"p{p}" for p in person), quality=quality))
    assert fitted.penalty >= 1.0


def test_experts_that_are_missing_in_part_are_taken_where_they_are():
    rng, labels = drawn(8, 400)
    strong = good(rng, labels)
    partial = good(rng, labels, 6.0)
    partial[::2] = np.nan
    never = np.full(len(labels), np.nan)
    held = table([strong, partial, never], labels)
    fitted = fit_gate(held)
    mixed = gate_logits(fitted.gate, held)
    assert np.isfinite(mixed).all()
    assert auc(labels[1::2], mixed[1::2]) > auc(labels[::2], mixed[::2])


def test_weights_balance_classes_and_soften_the_size_of_sources():
    labels = np.array([0.0] * 100 + [1.0] * 300 + [1.0] * 3)
    sources = ("a",) * 400 + ("clip",) * 3
    weights = balance_weights(table([np.zeros(403)], labels, sources=sources))
    assert weights.mean() == pytest.approx(1.0)
    assert weights[labels == 0].sum() == pytest.approx(weights[labels == 1].sum())
    share = weights[400:].sum() / weights[labels == 1].sum()
    assert share == pytest.approx(np.sqrt(3) / (np.sqrt(3) + np.sqrt(300)))


def test_same_seed_same_gate():
    rng, labels = drawn(9, 150)
    held = table([good(rng, labels), rng.normal(0, 1, 150)], labels)
    assert np.array_equal(gate_logits(fit_gate(held).gate, held), gate_logits(fit_gate(held).gate, held))


def test_degraded_pictures_do_not_make_it_cautious():
    rng, labels = drawn(21, 900)
    hard = np.arange(900) % 3 == 0
    column = np.where(hard, good(rng, labels, 0.7), good(rng, labels, 4.0))
    held = table([column, good(rng, labels, 0.2)], labels)
    together, apart = fit_gate(held), fit_gate(held, as_come=~hard)
    assert apart.gate.temperature > together.gate.temperature
    assert apart.ece_after < 0.03 < ece(labels[~hard], probabilities(together.held_out[~hard]))
    assert apart.ece_degraded > apart.ece_after
    assert np.isnan(together.ece_degraded)
    aucs = [auc(labels, gate_logits(fitted.gate, held)) for fitted in (together, apart)]
    assert aucs[1] == pytest.approx(aucs[0], abs=0.01)


def test_a_source_whose_fakes_are_all_degraded_does_not_shift_the_others():
    rng, labels = drawn(23, 1200)
    sources = np.where(np.arange(1200) % 2 == 0, "both", "real only")
    hard = (sources == "real only") & (labels > 0.5)
    column = good(rng, labels)
    held = table([column, good(rng, labels, 0.2)], labels, sources=tuple(sources))
    gate = fit_gate(held, as_come=~hard).gate
    level = 3.0  # where `good` puts what is as likely real as fake
    told = gate_logits(gate, table([np.array([level]), np.array([level])], np.array([1.0]), quality=np.zeros((1, 4))))
    assert abs(float(told[0])) < 0.25


# What the gate is fitted on: degraded pictures are marked, so that temperature and intervals leave them out.


def scores(name: str, count: int) -> ScoreTable:
    return ScoreTable(
        names=tuple(f"{name}{i}" for i in range(count)),
        kinds=("image",) * count,
        labels=np.arange(count) % 2.0,
        sources=(name,) * count,
        generators=("-",) * count,
        groups=tuple(f"{name}{i}" for i in range(count)),
        logits=np.zeros((count, 4)),
        quality=np.zeros((count, 4)),
    )


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.setattr(publishing, "score_table", lambda ensemble, pack, store, device: store)
    return {"calib": scores("plain", 4), "calib_hard": scores("hard", 3), "calib_clips": scores("clip", 2)}


def test_only_degraded_pictures_are_not_as_they_come(tables):
    held, as_come = publishing.calibration_table(None, None, tables, "cpu")
    assert [s for s, plain in zip(held.sources, as_come, strict=True) if not plain] == ["hard"] * 3
    assert len(held) == len(as_come) == 9


def test_without_clips_and_degraded_pictures_all_are_as_they_come(tables):
    held, as_come = publishing.calibration_table(None, None, {"calib": tables["calib"]}, "cpu")
    assert as_come.all()
    assert len(held) == 4
