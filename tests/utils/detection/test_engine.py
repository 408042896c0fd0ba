"""One contract for every engine: every person's score is their own, whoever else is in the batch."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from openvino import Model

from models.cards import EXPERT_NAMES, IMAGE_EXPERTS, expert_card
from models.ensemble_model import Ensemble
from models.gating import Gate
from models.graphs import build_graph
from models.preprocess import prepare
from tests.ensembles import build_ensemble
from utils.detection.engine import BATCH, Answers, Engine, NumericGate, TrackScores
from utils.detection.openvino_engine import InputMaker, OpenVinoEngine, resize_matrix
from utils.detection.processor import compile_graph, cpu_has_bf16
from utils.detection.torch_engine import TorchEngine
from utils.errors import ConfigError, WeightsCorruptError
from utils.faces.crops import QUALITY_NAMES
from utils.types import Floats, Pixels

Q = len(QUALITY_NAMES)
LSTM = EXPERT_NAMES.index("lstm")


def ensemble_of(names: tuple[str, ...] = EXPERT_NAMES) -> Ensemble:
    torch.manual_seed(3)
    return build_ensemble(names, tiny=True).eval()


def new_gate() -> NumericGate:
    torch.manual_seed(4)
    gate = Gate(experts=len(EXPERT_NAMES), quality=Q)
    torch.nn.init.normal_(gate.mix.weight)
    return NumericGate({key: value.numpy() for key, value in gate.state_dict().items()})


Build = Callable[..., Engine]


@pytest.fixture(scope="module")
def graph_of() -> Callable[[str], Any]:
    """Makes graphs of the tiny networks of `ensemble_of`; those of a subset differ, so each is one of the whole."""
    ensemble = ensemble_of()
    arrays = {name: {k: v.numpy() for k, v in made.state_dict().items()} for name, made in ensemble.experts.items()}
    return lambda name: build_graph(name, arrays[name], tiny=True, precision="fp32")


@pytest.fixture(params=["torch", "openvino"])
def engine(request: pytest.FixtureRequest, graph_of: Callable[[str], Any]) -> Build:
    """Builds the engine under test with some of the experts."""

    def build(names: tuple[str, ...] = EXPERT_NAMES) -> Engine:
        whole = ensemble_of()
        chosen = Ensemble(experts={n: whole.experts[n] for n in names}, tiny=True).eval()
        if request.param == "torch":
            return TorchEngine(chosen, new_gate(), device="cpu", threads=1)
        precisions = dict.fromkeys(names, "fp32")
        return OpenVinoEngine(graph_of, precisions, new_gate(), load_networks=lambda: chosen, tiny=True, threads=1)

    return build


def person(seed: int, frames: int) -> tuple[list[Pixels], Floats]:
    rng = np.random.default_rng(seed)
    return list(rng.integers(0, 256, (frames, 40, 40, 3), dtype=np.uint8)), rng.random((frames, Q), dtype=np.float32)


def score(chosen: Engine, *people: tuple[list[Pixels], Floats]) -> list[TrackScores]:
    """The scores of people whose crops go through the engine together."""
    answers, start, scores = chosen.run([crop for crops, _ in people for crop in crops]), 0, []
    for crops, quality in people:
        scores.append(chosen.mix(answers[start : start + len(crops)], quality))
        start += len(crops)
    return scores


def assert_same(a: TrackScores, b: TrackScores) -> None:
    assert a.logit == pytest.approx(b.logit, abs=1e-4)
    for name in ("weights", "expert_logits", "frame_logits"):
        assert np.allclose(getattr(a, name), getattr(b, name), atol=1e-4, equal_nan=True), name


@pytest.mark.parametrize("frames", [1, 3, 4, 16])
def test_shapes_and_no_nan_where_there_is_an_expert(engine, frames):
    (scores,) = score(engine(), person(0, frames))
    assert scores.frame_logits.shape == (frames,)
    assert np.isfinite(scores.frame_logits).all()
    assert np.isfinite(scores.logit)
    assert scores.weights.sum() == pytest.approx(1, abs=1e-6)
    judged = np.isfinite(scores.expert_logits)
    assert judged.tolist() == [True, True, True, frames >= 4]
    assert (scores.weights[~judged] == 0).all()


def test_score_does_not_depend_on_who_else_is_in_the_batch(engine):
    people = [person(1, 1), person(2, 16), person(3, 5), person(4, 1), person(5, 2 * BATCH + 3)]
    chosen = engine()
    together = score(chosen, *people)
    for alone, shared in zip(people, together, strict=True):
        assert_same(score(chosen, alone)[0], shared)
    for before, after in zip(together, reversed(score(chosen, *reversed(people))), strict=True):
        assert_same(before, after)


def test_frame_scores_are_those_of_the_frames_alone(engine):
    chosen, (crops, quality) = engine(), person(6, 6)
    (track,) = score(chosen, (crops, quality))
    alone = [score(chosen, ([crop], quality[i : i + 1]))[0].logit for i, crop in enumerate(crops)]
    assert np.allclose(track.frame_logits, alone, atol=1e-4)


def test_order_in_time_matters_to_the_lstm_alone(engine):
    chosen, (crops, quality) = engine(), person(7, 8)
    forward, backward = (score(chosen, (crops[::step], quality[::step].copy()))[0] for step in (1, -1))
    assert forward.expert_logits[LSTM] != pytest.approx(backward.expert_logits[LSTM], abs=1e-6)
    assert np.allclose(forward.expert_logits[:LSTM], backward.expert_logits[:LSTM], atol=1e-4)


@pytest.mark.parametrize("names", [("cnn",), ("vit", "cnn"), ("resnext", "lstm")])
def test_missing_experts_have_no_logit_and_no_weight(engine, names):
    (scores,) = score(engine(names), person(8, 5))
    there = np.array([name in names for name in EXPERT_NAMES])
    assert np.isfinite(scores.expert_logits).tolist() == there.tolist()
    assert (scores.weights[~there] == 0).all()
    assert scores.weights.sum() == pytest.approx(1, abs=1e-6)


def test_training_layers_are_switched_off(engine):
    chosen = engine()
    assert_same(*(score(chosen, person(9, 4))[0] for _ in range(2)))


def test_missing_gpu_is_said_and_auto_does_without(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    ensemble = build_ensemble(tiny=True)
    with pytest.raises(ConfigError, match="no GPU"):
        TorchEngine(ensemble, new_gate(), device="cuda", threads=1)
    assert TorchEngine(ensemble, new_gate(), device="auto", threads=1).device == "cpu"


def test_backends_agree(graph_of):
    ensemble = ensemble_of()
    fast = OpenVinoEngine(
        graph_of, dict.fromkeys(EXPERT_NAMES, "fp32"), new_gate(), load_networks=lambda: ensemble, tiny=True
    )
    slow = TorchEngine(ensemble, new_gate(), device="cpu", threads=1)
    people = [person(1, 1), person(2, 16), person(3, BATCH + 3)]
    for a, b in zip(score(slow, *people), score(fast, *people), strict=True):
        assert_same(a, b)


def test_tokens_are_those_that_the_head_of_the_vit_reads(engine):
    crops, _ = person(13, BATCH + 3)
    answers = engine().run([*crops, crops[0]])
    assert answers.tokens is not None
    with torch.inference_mode():
        logits = ensemble_of().experts["vit"].head(torch.from_numpy(answers.tokens)).logit.numpy()
    assert np.allclose(logits, answers.logits[:, EXPERT_NAMES.index("vit")], atol=1e-4)
    assert engine(("cnn",)).run(crops).tokens is None


def test_tokens_cost_openvino_not_one_bit(graph_of):
    crops = np.random.default_rng(14).normal(0, 1, (3, 3, 32, 32)).astype(np.float32)
    for precision in ("fp32", "bf16") if cpu_has_bf16() else ("fp32",):
        whole = graph_of("vit")
        plain = Model([result.input_value(0) for result in whole.get_results()[:2]], whole.get_parameters())
        found = []
        for graph in (plain, graph_of("vit")):
            request = compile_graph(graph, precision=precision, threads=1)
            request.infer({0: crops})
            found.append(request.get_output_tensor(0).data.copy())
        assert np.array_equal(*found)


def test_what_on_batch_raises_ends_the_work(engine):
    told = []

    def stop(done: float) -> None:
        told.append(done)
        raise InterruptedError

    stopped = engine()
    crops, quality = person(11, 3 * stopped.batch)
    with pytest.raises(InterruptedError):
        stopped.run(crops, stop)
    assert told == [pytest.approx(1 / 3)]
    assert len(score(engine(), (crops, quality))) == 1


def test_progress_reaches_the_end_once(engine):
    told: list[float] = []
    crops, _ = person(12, 2 * BATCH + 1)
    engine().run(crops, told.append)
    assert told == sorted(told)
    assert told.count(1.0) == 1


def test_networks_are_there_for_those_who_need_gradients(engine):
    chosen = engine(("cnn", "vit"))
    assert set(chosen.networks.experts) == {"cnn", "vit"}
    assert set(chosen.precisions) == {"cnn", "vit"}
    assert next(chosen.networks.parameters()).requires_grad


def test_openvino_drops_the_networks_that_nobody_holds(graph_of):
    loads = []

    def load() -> Ensemble:
        loads.append(ensemble_of())
        return loads.pop()

    precisions = dict.fromkeys(EXPERT_NAMES, "fp32")
    chosen = OpenVinoEngine(graph_of, precisions, new_gate(), load_networks=load, tiny=True)
    first = chosen.networks
    assert chosen.networks is first
    gone = weakref.ref(first)
    del first
    gc.collect()
    assert gone() is None


def test_many_frames_are_read_in_sequences_of_sixteen(engine: Build) -> None:
    chosen, (crops, _) = engine(), person(11, 40)
    answers = chosen.run(crops)
    assert answers.features is not None
    parts = [chosen.sequence_logit(answers.features[start : start + 16]) for start in (0, 12, 24)]
    assert chosen.person_logits(answers)[LSTM] == pytest.approx(np.mean(parts), abs=1e-5)
    few = answers[slice(0, 16)]
    assert few.features is not None
    assert chosen.person_logits(few)[LSTM] == chosen.sequence_logit(few.features)


def test_a_part_that_stands_out_is_judged_by_itself(engine: Build) -> None:
    """Answers with a level of their own in eight frames of forty: the score is that of those frames."""
    chosen, (crops, quality) = engine(), person(12, 40)
    answers = chosen.run(crops)
    image_experts = [i for i in range(len(EXPERT_NAMES)) if i != LSTM]
    raised = answers.logits.copy()
    raised[:, image_experts] = np.random.default_rng(0).normal(-3, 0.3, (40, 3))
    plain = chosen.mix(Answers(raised, answers.features, None), quality)
    assert plain.part is None
    raised[20:28, image_experts] += 9
    scores = chosen.mix(Answers(raised, answers.features, None), quality)
    assert scores.part is not None
    assert np.flatnonzero(scores.part).tolist() == list(range(20, 28))
    alone = chosen.mix(Answers(raised, answers.features, None)[slice(20, 28)], quality[20:28])
    assert scores.logit == pytest.approx(alone.logit, abs=1e-5)
    assert scores.logit > plain.logit
    assert len(scores.frame_logits) == 40


# What the graphs of the networks take is what torch prepares for its own.


@pytest.mark.parametrize(("side", "tiny"), [(224, False), (96, False), (40, True), (17, True)])
def test_inputs_are_those_of_torch(side, tiny):
    crops = np.random.default_rng(side).integers(0, 256, (3, side, side, 3), dtype=np.uint8)
    cards = [expert_card(name, tiny=tiny) for name in IMAGE_EXPERTS]
    images = torch.from_numpy(crops).permute(0, 3, 1, 2).float().div(255)
    made = InputMaker(cards, threads=1).make(crops)
    for card in cards:
        assert np.allclose(made[card.name], prepare(images, card).numpy(), atol=2e-5), card.name


@pytest.mark.parametrize(("source", "target"), [(224, 96), (224, 112), (32, 224), (7, 7)])
def test_resizing_keeps_the_mean_of_a_flat_side(source, target):
    matrix = resize_matrix(source, target)
    assert matrix.shape == (target, source)
    assert np.allclose(matrix.sum(1), 1, atol=1e-6)
    assert (matrix >= 0).all()


def test_no_network_takes_no_input():
    assert InputMaker([]).make(np.zeros((1, 8, 8, 3), np.uint8)) == {}


# The gate in numpy computes what the gate in torch does.

E = len(EXPERT_NAMES)


def random_gate(seed: int) -> Gate:
    generator = torch.Generator().manual_seed(seed)
    gate = Gate(experts=E, quality=Q)
    for tensor in gate.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape, generator=generator))
    gate.quality_std.abs_().add_(0.1)
    return gate


def numeric(gate: Gate) -> NumericGate:
    return NumericGate({key: value.numpy() for key, value in gate.state_dict().items()})


@pytest.mark.parametrize("seed", range(5))
def test_both_gates_agree_whoever_is_missing(seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 5, (64, E)).astype(np.float32)
    logits[rng.random((64, E)) < 0.4] = np.nan
    logits[np.isnan(logits).all(1), 0] = 1.0
    quality = rng.normal(0, 3, (64, Q)).astype(np.float32)
    gate = random_gate(seed)
    with torch.no_grad():
        wanted = gate(torch.from_numpy(logits), torch.from_numpy(quality))
    found = numeric(gate).mix(logits, quality)
    for name in ("logit", "weights", "calibrated"):
        reference = getattr(wanted, name).numpy()
        assert np.allclose(getattr(found, name), reference, rtol=1e-4, atol=1e-5, equal_nan=True), name
    assert (found.weights[np.isnan(logits)] == 0).all()


def test_row_without_any_expert_is_refused():
    with pytest.raises(ValueError, match="at least one expert"):
        numeric(random_gate(0)).mix(np.full((1, E), np.nan, np.float32), np.zeros((1, Q), np.float32))


@pytest.mark.parametrize("change", ["lacks", "extra", "shape"])
def test_arrays_that_are_no_gate_are_refused(change):
    arrays = {key: value.numpy() for key, value in random_gate(0).state_dict().items()}
    if change == "lacks":
        del arrays["scale"]
    elif change == "extra":
        arrays["other"] = np.zeros(1)
    else:
        arrays["shift"] = np.zeros(E + 1, np.float32)
    with pytest.raises(WeightsCorruptError, match="gate"):
        NumericGate(arrays)
