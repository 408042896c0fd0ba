"""Does it really learn? A source that training never saw comes in as feedback; held-out items of it are the measure.

    python -m benchmarks.learning_benchmark --features RUN/features --pack RUN/pack --source NAME [--plot FILE.svg]

The base of the simulation is a ViT head and a gate trained here *without* the source (the backbone is CLIP and frozen;
CNN, ResNeXt-50 and BiLSTM are left out, since the shipped ones saw every source). Then 200 labelled items of the source
come in five rounds. Beside our scheme runs the naive one that many products have: learn the last sample alone, keep the
checkpoint if that sample improved.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from benchmarks.common import run_command, tell
from models.cards import EXPERT_NAMES
from models.ensemble_model import create_network
from models.gating import Gate
from models.vision_transformer import ViTExpert
from utils.errors import TrainingDataError
from utils.evaluation.plots import new_figure
from utils.feedback.acceptance import Compared, judge_candidate
from utils.feedback.feature_set import FeatureSet, join_features, pseudonym
from utils.feedback.fine_tune import Recipe as Tuning
from utils.feedback.fine_tune import tune
from utils.feedback.golden import figures
from utils.feedback.trainable import VIT_COLUMN, LearnedParts, probabilities, tensors_of
from utils.training.crop_set import Pack, load_pack
from utils.training.experts import train_vit_head
from utils.training.features import FeatureStore
from utils.training.gate_fit import platt
from utils.training.golden_sets import capped, in_golden_half
from utils.training.loop import Recipe
from utils.training.views import View

ITEMS, ROUNDS = 200, 5
NAIVE_LR = 1e-3
"""At the naive scheme's usual 1e-5 its 4,000 clipped steps could move the weights by 0.04 at most."""
NAIVE_STEPS = 20
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Point:
    """One scheme after one round: accuracy on held-out items of the new source, and the golden figures."""

    scheme: str
    items: int
    held_out: float
    golden_auc: float
    golden_ece: float
    verdict: str


@dataclass(frozen=True)
class Split:
    """Everything a simulation uses; no group is in two of them."""

    train: FeatureSet
    calib: FeatureSet
    stream: FeatureSet
    held_out: FeatureSet
    golden: FeatureSet
    replay: FeatureSet


class _Held:
    """A feature set as training reads a store."""

    def __init__(self, features: FeatureSet) -> None:
        self._features = features
        named = zip(features.labels, features.sources, features.generators, strict=True)
        self.views = tuple(View(i, int(label), s, g, 0) for i, (label, s, g) in enumerate(named))

    def load(self, name: str) -> npt.NDArray[np.generic]:
        return np.asarray(getattr(self._features, name))

    def take(self, name: str, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.generic]:
        return self.load(name)[rows]

    def labels(self) -> npt.NDArray[np.float32]:
        return self._features.labels


def take(pack: Pack, store: FeatureStore, chosen: Sequence[int]) -> FeatureSet:
    """Items of a store as a feature set in which only the ViT is present."""
    picked = np.sort(np.asarray(chosen, np.int64))
    views = [store.views[i] for i in picked]
    logits = np.full((len(picked), len(EXPERT_NAMES)), np.nan, np.float32)
    logits[:, VIT_COLUMN] = 0
    return FeatureSet(
        tokens=np.asarray(store.load("tokens")[picked], np.float16),
        starts=np.arange(len(picked) + 1),
        logits=logits,
        quality=np.asarray(store.load("quality")[picked], np.float32),
        labels=np.array([v.label for v in views], np.float32),
        sources=tuple(v.source for v in views),
        generators=tuple(v.generator for v in views),
        groups=tuple(pseudonym(pack.rows[v.row].group) for v in views),
        keys=tuple(pseudonym(pack.rows[v.row].file) for v in views),
    )


def split_stores(features: Path, pack: Pack, source: str) -> Split:
    """Divide the stores so that the source is unknown to training, calibration, replay and golden set.

    Raises:
        TrainingDataError: the source has too few real or fake items to learn from or to measure with.
    """
    train, calib, val = (FeatureStore.opened(features / n) for n in ("train", "calib", "val"))
    of = {name: [v.source for v in s.views[: s.done]] for name, s in (("t", train), ("c", calib), ("v", val))}
    new = [i for i, s in enumerate(of["t"]) if s == source and train.views[i].generator != "self-blend"]
    stream = take(pack, train, capped(train, new, ITEMS // 2, 3))
    held_out = take(pack, val, [i for i, s in enumerate(of["v"]) if s == source])
    for part, least in ((stream, ITEMS // 2), (held_out, 20)):
        if min((part.labels == 0).sum(), (part.labels == 1).sum()) < least:
            raise TrainingDataError(f"The source {source} needs {least} real and fake items for this.")
    known = [i for i, s in enumerate(of["c"]) if s != source]
    golden = [i for i, s in enumerate(of["v"]) if s != source and in_golden_half(pack.rows[val.views[i].row].group)]
    others = [take(pack, train, [i for i, s in enumerate(of["t"]) if s != source])]
    if (features / "train_video").is_dir():
        video = FeatureStore.opened(features / "train_video")
        others.append(take(pack, video, range(video.done)))
    return Split(
        train=join_features(others),
        calib=take(pack, calib, known),
        stream=stream,
        held_out=held_out,
        golden=take(pack, val, golden),
        replay=take(pack, calib, capped(calib, known, 60, 2)),
    )


def train_base(split: Split, folder: Path) -> Callable[[], LearnedParts]:
    """Train head and gate without the source; gives a function that makes fresh copies."""
    torch.manual_seed(0)
    expert = create_network("vit")
    if not isinstance(expert, ViTExpert):
        raise TypeError("the network `vit` must be a ViTExpert")
    recipe = Recipe(epochs=12, batch=64, lr=1e-3, weight_decay=0.5, patience=6)
    train_vit_head(_Held(split.train), _Held(split.calib), recipe, folder, expert=expert)
    head = expert.head.eval()
    with torch.inference_mode():
        raw = head(tensors_of(split.calib)[0]).logit.double().numpy()
    scale, shift = platt(raw, split.calib.labels.astype(np.float64), np.ones(len(raw)))

    def fresh() -> LearnedParts:
        gate = Gate(experts=len(EXPERT_NAMES), quality=split.calib.quality.shape[1])
        gate.scale[VIT_COLUMN], gate.shift[VIT_COLUMN] = scale, shift
        return LearnedParts(copy.deepcopy(head), gate).eval()

    return fresh


def simulate(split: Split, fresh: Callable[[], LearnedParts], recipe: Tuning, tell: Tell) -> list[Point]:
    """Stream the source in rounds through our scheme and through the naive one."""
    order = np.random.default_rng(7).permutation(len(split.stream))
    base, served, naive = fresh(), fresh(), fresh()
    points = [_point(scheme, 0, base, split, "base") for scheme in ("gated", "naive")]
    before = figures(split.golden, probabilities(base, split.golden))
    for count in np.linspace(0, len(order), ROUNDS + 1).astype(int)[1:]:
        feedback = split.stream.select(order[:count])
        candidate = fresh()
        tune(candidate, feedback, split.replay, recipe)
        wrong = (probabilities(served, feedback) >= 0.5) != (feedback.labels > 0.5)
        right = (probabilities(candidate, feedback) >= 0.5) == (feedback.labels > 0.5)
        golden = (figures(split.golden, probabilities(parts, split.golden)) for parts in (served, candidate))
        verdict = judge_candidate([Compared("golden", before, *golden)], int((wrong & right).sum()))
        served = candidate if verdict.promoted else served
        points.append(_point("gated", int(count), served, split, verdict.code))
        for i in order[count - len(order) // ROUNDS : count]:
            naive = naive_step(naive, split.stream.select(np.array([i])))
        points.append(_point("naive", int(count), naive, split, "kept"))
        for point in points[-2:]:
            tell(f"{point.scheme:6} {point.items:4} items: held-out accuracy {point.held_out:.3f}, golden AUC "
                 f"{point.golden_auc:.4f}, ECE {point.golden_ece:.4f} ({point.verdict})")  # fmt: skip
    return points


def naive_step(parts: LearnedParts, sample: FeatureSet) -> LearnedParts:
    """Learn one sample, and keep the result if its own loss fell; nothing else is looked at."""
    learned = parts.learning()
    held = {name: tensor.detach().clone() for name, tensor in learned.items()}
    inputs, wanted = tensors_of(sample), torch.from_numpy(sample.labels)
    losses = []
    for _ in range(NAIVE_STEPS):
        loss = functional.binary_cross_entropy_with_logits(parts(*inputs), wanted)
        losses.append(float(loss.detach()))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(list(learned.values()), 1.0)
        with torch.no_grad():
            for tensor in learned.values():
                if tensor.grad is not None:
                    tensor.sub_(tensor.grad, alpha=NAIVE_LR)
                    tensor.grad = None
    with torch.no_grad():
        after = float(functional.binary_cross_entropy_with_logits(parts(*inputs), wanted))
        for name, tensor in learned.items():
            tensor.requires_grad_(False)
            if not after < losses[0]:
                tensor.copy_(held[name])
    return parts


def _point(scheme: str, items: int, parts: LearnedParts, split: Split, verdict: str) -> Point:
    golden = figures(split.golden, probabilities(parts, split.golden))
    right = (probabilities(parts, split.held_out) >= 0.5) == (split.held_out.labels > 0.5)
    return Point(scheme, items, float(right.mean()), golden.auc, golden.ece, verdict)


def plot_learning(points: Sequence[Mapping[str, Any]], source: str, path: Path) -> None:
    """Held-out accuracy and golden AUC of two schemes over the number of labelled items, as SVG.

    Args:
        points: each with `scheme` (`gated`, `naive`), `items`, `held_out` and `golden_auc`.
        source: that training had not seen.
        path: of the SVG.
    """
    figure = new_figure(8.0, 3.4)
    panels = ((1, "held_out", f"accuracy on held-out {source}"), (2, "golden_auc", "AUC on the golden set"))
    for number, key, title in panels:
        axes = figure.add_subplot(1, 2, number)
        for scheme, style, name in (("gated", "o-", "golden-set gate"), ("naive", "s--", "last sample only")):
            chosen = [p for p in points if p["scheme"] == scheme]
            axes.plot([p["items"] for p in chosen], [p[key] for p in chosen], style, label=name)
        if key == "golden_auc":
            base = next(p[key] for p in points if p["items"] == 0)
            axes.axhline(base - 0.005, color="0.6", linestyle=":", label="bound of the gate")
        axes.set(xlabel="labelled items", title=title)
        axes.legend(fontsize="small")
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def main(arguments: list[str] | None = None) -> int:
    """Entry point of the command: 0 when it learned at least five points within the bounds, 1 when not."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning_benchmark", description="Does it learn?")
    parser.add_argument("--features", type=Path, required=True, help="folder with the stores train, calib and val")
    parser.add_argument("--pack", type=Path, required=True, help="folder of the pack")
    parser.add_argument("--source", required=True, help="the source that training shall not have seen")
    parser.add_argument("--plot", type=Path, help="SVG to write")
    parser.add_argument("--json", type=Path, help="figures to write")
    return run_command(parser, arguments, _learn)


def _learn(chosen: argparse.Namespace) -> int:
    split = split_stores(chosen.features, load_pack(chosen.pack), chosen.source)
    with tempfile.TemporaryDirectory() as folder:
        fresh = train_base(split, Path(folder) / "vit")
    points = simulate(split, fresh, Tuning(), tell)
    plain: list[dict[str, Any]] = [asdict(p) for p in points]
    if chosen.json:
        chosen.json.write_text(json.dumps({"source": chosen.source, "points": plain}, indent=2) + "\n", "utf-8")
    if chosen.plot:
        plot_learning(plain, chosen.source, chosen.plot)
    gated = [p for p in points if p.scheme == "gated"]
    return 0 if gated[-1].held_out - gated[0].held_out >= 0.05 else 1


if __name__ == "__main__":
    sys.exit(main())
