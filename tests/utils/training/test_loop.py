"""The training loop learns, averages, stops early, refuses nonsense, and resumes to the bit."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from utils.errors import TrainingDataError
from utils.training import loop
from utils.training.loop import CHECKPOINT, Recipe, Task, fit, learning_rate

pytestmark = pytest.mark.usefixtures("one_thread")
STEPS = 6
RECIPE = Recipe(epochs=4, batch=16, lr=0.02, weight_decay=0.01, average=0.8, patience=10, save_every_s=0.0)


def network(seed: int = 0) -> nn.Module:
    """With batch norm (running statistics), dropout (random numbers) and channels-last memory."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(16, 1)
        ).to(memory_format=torch.channels_last)


def toy(stop_at: tuple[int, int] | None = None, scores=None) -> Task:
    """Pictures whose brightness is the label; `stop_at` (epoch, batch) raises where a power cut would come."""

    def draw(rng, count):
        labels = torch.from_numpy((rng.random(count) < 0.5).astype(np.float32))
        pictures = torch.from_numpy(rng.normal(0, 0.5, (count, 1, 4, 4)).astype(np.float32))
        return pictures + labels.view(-1, 1, 1, 1), labels

    def make(epoch):
        rng = np.random.default_rng(epoch)
        for number in range(STEPS):
            if (epoch, number) == stop_at:
                raise InterruptedError("power cut")
            yield draw(rng, RECIPE.batch)

    def loss_of(net, batch):
        return functional.binary_cross_entropy_with_logits(net(batch[0]).squeeze(1), batch[1])

    held = draw(np.random.default_rng(99), 200)
    given = iter(scores or ())

    def score_of(net):
        if scores:
            return next(given)
        with torch.inference_mode():
            return float(((net(held[0]).squeeze(1) > 0) == (held[1] > 0.5)).float().mean())

    return Task(make, STEPS, loss_of, score_of)


def state(net: nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in net.state_dict().items()}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[k], b[k]) for k in a) and a.keys() == b.keys()


def test_learns_a_separable_problem(tmp_path, capsys):
    net = network()
    fit(net, toy(), dataclasses.replace(RECIPE, epochs=10), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["score"] > 0.9
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert lines[0]["recipe"]["lr"] == RECIPE.lr
    assert capsys.readouterr().err.count("validation score") == len(lines) >= 10
    assert not net.training


@pytest.mark.parametrize("where", [(0, 3), (1, 0), (2, 4), (3, 5)])
def test_run_that_was_stopped_ends_with_the_same_bits(tmp_path, where):
    whole = network()
    fit(whole, toy(), RECIPE, tmp_path / "whole")
    torch.manual_seed(12345)
    with pytest.raises(InterruptedError):
        fit(network(), toy(stop_at=where), RECIPE, tmp_path / "parts")
    resumed = network(seed=5)
    torch.manual_seed(54321)
    fit(resumed, toy(), RECIPE, tmp_path / "parts")
    assert equal(state(whole), state(resumed))


def test_finished_run_is_loaded_and_not_trained_again(tmp_path):
    net = network()
    fit(net, toy(), RECIPE, tmp_path)
    again = network(seed=3)
    fit(again, toy(stop_at=(0, 0)), RECIPE, tmp_path)
    assert equal(state(net), state(again))


def test_stops_early_and_keeps_the_best_epoch(tmp_path):
    seen: list[dict[str, torch.Tensor]] = []
    plain = toy(scores=[0.5, 0.9, 0.7, 0.8, 0.99])

    def score_of(net):
        seen.append(state(net))
        return plain.score_of(net)

    net = network()
    recipe = dataclasses.replace(RECIPE, epochs=9, patience=2)
    fit(net, dataclasses.replace(plain, score_of=score_of), recipe, tmp_path)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["score"] for line in lines] == [0.5, 0.9, 0.7, 0.8]
    assert equal(state(net), seen[1])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_loss_that_is_not_finite_is_refused(tmp_path, value):
    task = dataclasses.replace(toy(), loss_of=lambda net, batch: net(batch[0]).mean() * value)
    with pytest.raises(TrainingDataError, match=r"The loss of .* at step 0"):
        fit(network(), task, RECIPE, tmp_path)


def test_score_that_is_not_a_number_is_refused(tmp_path):
    with pytest.raises(TrainingDataError, match="cannot be validated"):
        fit(network(), toy(scores=[math.nan]), RECIPE, tmp_path)


def test_validated_weights_are_the_running_average(tmp_path):
    steps: list[dict[str, torch.Tensor]] = []
    validated: list[dict[str, torch.Tensor]] = []
    plain = toy()

    def loss_of(net, batch):
        steps.append(state(net))
        return plain.loss_of(net, batch)

    def score_of(net):
        validated.append(state(net))
        return 1.0

    net = network()
    start = state(net)
    recipe = dataclasses.replace(RECIPE, epochs=2)
    fit(net, Task(plain.batches, STEPS, loss_of, score_of), recipe, tmp_path)
    averaged = start["5.weight"].clone()
    for step in range(STEPS):  # the weights after step i are those that step i + 1 sees
        decay = min(recipe.average, (1 + step) / (10 + step))
        averaged = decay * averaged + (1 - decay) * steps[step + 1]["5.weight"]
    assert torch.allclose(validated[0]["5.weight"], averaged, atol=1e-6)
    assert equal(state(net), validated[0]), "the best average is what is kept"


def test_checkpoint_of_another_network_is_refused_with_a_way_out(tmp_path):
    fit(network(), toy(), dataclasses.replace(RECIPE, epochs=1), tmp_path)
    with pytest.raises(TrainingDataError, match="name another run"):
        fit(nn.Sequential(nn.Flatten(), nn.Linear(16, 1)), toy(), RECIPE, tmp_path)


def test_damaged_checkpoint_is_refused(tmp_path):
    (tmp_path / CHECKPOINT).write_bytes(b"not a checkpoint")
    with pytest.raises(TrainingDataError, match="damaged"):
        fit(network(), toy(), RECIPE, tmp_path)


def test_frozen_parameters_stay(tmp_path):
    net = network()
    net[0].weight.requires_grad_(False)
    before = net[0].weight.clone()
    fit(net, toy(), RECIPE, tmp_path)
    assert torch.allclose(net[0].weight, before, atol=1e-6), "averaging rounds, and nothing else happens"


def test_learning_rate_warms_up_and_ends_at_a_hundredth():
    recipe = Recipe(lr=1.0, warmup=0.1)
    rates = [learning_rate(recipe, step, 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == pytest.approx(1.0)
    assert rates[100] == pytest.approx(0.01)
    assert all(a >= b for a, b in itertools.pairwise(rates[9:]))


@pytest.mark.parametrize("change", [{"epochs": 0}, {"batch": 0}, {"patience": 0}, {"lr": 0.0}, {"average": 1.0}])
def test_recipe_checks_itself(change):
    with pytest.raises(ValueError, match="start at 1"):
        Recipe(**change)


# Lines and bars of a training: a file gets lines, and a bar only of what lasts.


def test_a_file_gets_lines_and_no_bar_of_what_is_soon_done(capsys):
    with loop.bar("things", 3) as shown:
        loop.tell("a line")
        shown.update()
    assert capsys.readouterr().err == "a line\n"


def test_a_bar_in_a_file_shows_what_was_done_earlier(capsys, monkeypatch):
    monkeypatch.setattr(loop, "SELDOM_S", 0.0)
    with loop.bar("things", 4, 2) as shown:
        shown.update()
    assert "things" in (said := capsys.readouterr().err)
    assert "3/4" in said
