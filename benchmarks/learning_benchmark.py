"""Is feedback felt? Sources that a version has never seen are taught to it by corrections; others of them are measured.

    python -m benchmarks.learning_benchmark measure --run RUN --packs PACKS [--sources NAME ...] [--out FILE]
    python -m benchmarks.learning_benchmark show                      (or: make learning-benchmark)

`measure` needs the folders of a training (`train.py --run RUN --packs PACKS`). For each source it trains the ViT's head
anew on the stored views of everything but the source and its relatives; gate, temperature and undecided band stay those
of the version, which come from scores of heads that had not seen a picture's source. The source leaves golden set and
replay buffer too. Where CNN, ResNeXt-50 and BiLSTM know the source they are left out. Then a trusted user goes through
one half of the source's people and presses *Incorrect* wherever the verdict is not right, until there are 20, 50 or 200
corrections; once he says nothing of the others, once he presses *Correct* on them. Each time a candidate is trained and
judged as the server does it. Measured are verdicts on the other half.
`show` writes table and plot from the file that `measure` wrote. `learning_voices.py` teaches the network of speech.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.common import run_command, tell
from models.cards import EXPERT_NAMES
from models.vision_transformer import build_vit
from utils.config import load_settings
from utils.detection.verdict import outcome_of
from utils.errors import TrainingDataError
from utils.evaluation.plots import new_figure
from utils.evaluation.scorecard import markdown_table
from utils.feedback.cached_judge import VIT_COLUMN, borders, load_parts, probabilities
from utils.feedback.feature_set import FeatureSet, join_features
from utils.feedback.golden import Lineage, figures, load_lineage
from utils.feedback.remember import Recipe
from utils.feedback.retrain import make_candidate
from utils.networks import load_ensemble
from utils.tensors import read_tensors, state_arrays
from utils.training.crop_set import Pack, load_pack
from utils.training.experts import new_network, train_vit_head
from utils.training.features import VIEWS_FILE, Features, FeatureStore, fingerprint
from utils.training.planning import CLEAN, RECODED, head_weights, read_plan
from utils.training.publishing import features_of, write_lineage
from utils.training.strangers import relatives
from utils.training.traces import fit_traces
from utils.training.views import View
from utils.types import Outcome
from utils.weights import (
    CALIBRATION_FILE,
    FROZEN,
    GATE_FILE,
    Version,
    current_name,
    publish_version,
    read_document,
    verify_version,
    weights_root,
)

ROOT = Path(__file__).resolve().parent.parent
SCORES = ROOT / "docs" / "results" / "learning.json"
SOURCES = ("dfdc", "stylegan1_140k", "diffusion_sfhq", "frames_deepfacelive", "stgan", "stargan")
"""The six sources with most pictures that have fakes."""
COUNTS = (20, 50, 200)
HEAD = "Verdicts on held-out items before and after; means over sources ([how](../learning.md#does-it-help))."
EACH = "Right/wrong verdicts of each source, in per cent, by number of corrections (0 is before):"
KNOWN = frozenset({"dfdc", "stylegan1_140k", "diffusion_sfhq", "lfw"})
"""Sources that CNN, ResNeXt-50 and BiLSTM of v8 were trained on."""


@dataclass(frozen=True)
class Case:
    """A version that has not seen a source, and the source in two halves that share no person.

    Args:
        source: its name.
        version: with golden set and replay buffer without the source.
        stream: what the user goes through, in this order.
        held_out: what is measured.
        band: the verdict's, of the version.
    """

    source: str
    version: Version
    stream: FeatureSet
    held_out: FeatureSet
    band: tuple[float, float]

    def outcomes(self, version_scores: npt.NDArray[np.float64]) -> npt.NDArray[np.str_]:
        """The verdict on each score."""
        return np.array([outcome_of(score, self.band).value for score in version_scores])


@dataclass(frozen=True)
class Round:
    """What a user gets after so many corrections.

    Args:
        source: that was taught.
        corrections: that were learned; 0 is the version before.
        confirmed: right verdicts on the way on which he pressed *Correct*; None where he says nothing of them.
        held_out: items that are measured.
        right: share of them with a right verdict; `wrong` and `inconclusive` are the others.
        learned_right: share of what he pressed on that gets a right verdict.
        auc: on the golden set.
        ece: on the golden set.
        verdict: code of the acceptance.
        reason: its sentence.
        seconds: the training took.
    """

    source: str
    corrections: int
    confirmed: int | None
    held_out: int
    right: float
    wrong: float
    inconclusive: float
    learned_right: float
    auc: float
    ece: float
    verdict: str
    reason: str
    seconds: float


def wrong_of(outcomes: npt.NDArray[np.str_], labels: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Which outcomes say the opposite of the label."""
    return np.asarray(outcomes == np.where(labels > 0.5, Outcome.REAL.value, Outcome.FAKE.value))


def right_of(outcomes: npt.NDArray[np.str_], labels: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Which outcomes say what the label says."""
    return np.asarray(outcomes == np.where(labels > 0.5, Outcome.FAKE.value, Outcome.REAL.value))


class Stage:
    """The stores of a training and the version that came from it, from which cases are made.

    Args:
        run: folder of the training.
        packs: folder of its packed crops.
        root: the folder with the versions.
        name: of the version.
    """

    def __init__(self, run: Path, packs: Path, root: Path, name: str) -> None:
        self._root, self._version = root, verify_version(root, name)
        self._pack: Pack = load_pack(packs)
        self._plan = read_plan(ROOT / "data" / "recipes" / f"{name}.toml")
        self._stores = {folder.name: opened(folder) for folder in sorted((run / "features").iterdir())}
        self._whole: Lineage = load_lineage(self._version)

    def case(self, source: str, folder: Path) -> Case:
        """The version without a source, published in a folder of its own."""
        family, experts = relatives(source), EXPERT_NAMES if source not in KNOWN else ("vit",)
        models = folder / "models"
        models.mkdir(parents=True)
        (models / "base").symlink_to((self._root / "base").resolve())
        gate, calibration = (
            read_tensors(self._version.folder / GATE_FILE), read_document(self._version.folder / CALIBRATION_FILE),
        )  # fmt: skip
        version = publish_version(
            models, "without", {"vit": self._head_without(family, folder / "head"), "gate": gate},
            {"card": {**self._version.card, "name": "without"}, "calibration": calibration},
            {f"{e}.safetensors": self._version.folder / f"{e}.safetensors" for e in FROZEN if e in experts},
        )  # fmt: skip
        golden, replay = (
            _without(part, family, experts) for part in (self._whole.golden[0].features, self._whole.replay)
        )
        write_lineage(models, "without", golden, replay)
        return halved(source, version, self._items(source, version))

    def _head_without(self, family: str, folder: Path) -> Any:
        def kept(names: Sequence[str]) -> Features:
            joined = Features([self._stores[name] for name in names])
            return Features(
                [joined], np.array([relatives(self._pack.rows[v.row].source) != family for v in joined.views])
            )

        train, calib = kept([name for name in self._stores if name.startswith("train")]), kept(["calib"])
        expert = new_network(build_vit, tiny=False, seed=self._plan.vit.seed)
        weights = head_weights(train.views, self._pack.rows)
        traces = fit_traces(kept([RECODED]), kept([CLEAN])) if RECODED in self._stores else None
        train_vit_head(train, calib, self._plan.vit, folder, expert=expert, weights=weights, traces=traces)
        return {k: v for k, v in state_arrays(expert).items() if k.startswith("head.")}

    def _items(self, source: str, version: Version) -> FeatureSet:
        ensemble, _ = load_ensemble(version.folder.parent, version)
        parts = []
        for store in (self._stores[name] for name in ("train_clean", "calib", "val")):
            chosen = [i for i, view in enumerate(store.views) if view.source == source and not view.blended]
            if chosen:
                parts.append(features_of(ensemble, self._pack, store, chosen))
        return join_features(parts)


def opened(folder: Path) -> FeatureStore:
    """A finished store of a training, which is only read.

    Raises:
        TrainingDataError: it is of another form or not finished.
    """
    text = (folder / VIEWS_FILE).read_text("utf-8")
    try:
        views = [View(**view) for view in json.loads(text)]
    except TypeError as error:
        raise TrainingDataError(f"The views of {folder} are of another release: {error}.") from error
    if fingerprint(views) != text or (store := FeatureStore(folder, views)).done != len(views):
        raise TrainingDataError(f"The feature store {folder} is of another form or not finished.")
    return store


def _without(features: FeatureSet, family: str, experts: Sequence[str]) -> FeatureSet:
    """A set without a family of sources and without the answers of experts that are left out."""
    kept = features.select(np.array([relatives(source) != family for source in features.sources]))
    logits = kept.logits.copy()
    logits[:, [i for i, name in enumerate(EXPERT_NAMES) if name not in experts]] = np.nan
    logits[:, VIT_COLUMN] = 0  # computed from the tokens
    return dataclasses.replace(kept, logits=logits)


def teach(case: Case, count: int, confirms: bool = False) -> Round | None:
    """Learn the first corrections of a case and measure; None where there are not so many, or nearly (90 %).

    Args:
        case: from `Stage.case`.
        count: of corrections; 0 measures the version as it is.
        confirms: *Correct* is pressed too, wherever the verdict is right before the last of the corrections.
    """
    base, lineage = load_parts(case.version), load_lineage(case.version)
    shown = case.outcomes(probabilities(base, case.stream))
    chosen = np.flatnonzero(~right_of(shown, case.stream.labels))[:count]
    if len(chosen) < 0.9 * count:
        return None
    parts, golden, verdict, reason, seconds = base, lineage.golden[0].features, "base", "", 0.0
    pressed = np.arange(chosen[-1] + 1) if confirms else chosen
    feedback = case.stream.select(pressed)
    if count:
        feedback = dataclasses.replace(feedback, sources=("user",) * len(feedback))
        started = time.monotonic()
        done = make_candidate(feedback, lineage, case.version, Recipe.of_card(case.version.card))
        seconds = time.monotonic() - started
        parts, verdict, reason = done.parts, done.verdict.code, done.verdict.reason
    of_golden = figures(golden, probabilities(parts, golden))
    said = case.outcomes(probabilities(parts, case.held_out))
    right, wrong = (float(of(said, case.held_out.labels).mean()) for of in (right_of, wrong_of))
    learned = right_of(case.outcomes(probabilities(parts, feedback)), feedback.labels)
    return Round(
        source=case.source, corrections=len(chosen), confirmed=len(pressed) - len(chosen) if confirms else None,
        held_out=len(said), right=right, wrong=wrong, inconclusive=1 - right - wrong, reason=reason, verdict=verdict,
        learned_right=float(learned.mean()) if count else 0.0, auc=of_golden.auc, ece=of_golden.ece,
        seconds=round(seconds, 1),
    )  # fmt: skip


def halved(source: str, version: Version, items: FeatureSet) -> Case:
    """A case of a version as it is: one half is gone through, the other measured."""
    half = np.array([int(hashlib.sha256(f"teach {g}".encode()).hexdigest(), 16) % 2 == 0 for g in items.groups])
    order = np.random.default_rng(7).permutation(int(half.sum()))
    return Case(source, version, items.select(half).select(order), items.select(~half), borders(version))


def summary(rounds: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the goals are about, as a table: means over the sources that have so many corrections."""
    base = {r["source"]: r for r in rounds if r["verdict"] == "base"}
    heads = (
        "corrections", "sources", "wrong", "right", "right, worst source", "promoted", "golden AUC, ECE at worst",
    )  # fmt: skip
    rows = []
    for confirms, count in itertools.product((False, True), COUNTS):
        of = [r for r in rounds if r["verdict"] != "base" and (r["asked"], _confirms(r)) == (count, confirms)]
        if not of:
            continue
        started = [base[r["source"]] for r in of]
        served = [r if r["verdict"] == "promoted" else b for r, b in zip(of, started, strict=True)]
        wrong, right = (
            ", ".join(f"{float(np.mean([each[key] for each in part])):.1%}" for part in (started, served))
            for key in ("wrong", "right")
        )
        promoted = sum(r["verdict"] == "promoted" for r in of)
        least, auc = (min(r[key] - b[key] for r, b in zip(of, started, strict=True)) for key in ("right", "auc"))
        ece = max(r["ece"] - b["ece"] for r, b in zip(of, started, strict=True))
        told = (f"{100 * least:+.1f} points", f"{promoted} of {len(of)}", f"{auc:+.4f}, {ece:+.4f}")
        rows.append((_name(count, confirms), len(of), wrong, right, *told))
    return markdown_table(heads, rows)


def _confirms(done: Mapping[str, Any]) -> bool:
    return done.get("confirmed") is not None


def _name(count: int, confirms: bool) -> str:
    return f"{count} and *Correct*" if confirms else str(count)


def table(rounds: Sequence[Mapping[str, Any]]) -> list[str]:
    """Shares of right and wrong verdicts of each source that taught, in per cent, over the number of corrections."""
    kinds = [(0, False), *((count, confirms) for confirms in (False, True) for count in COUNTS)]
    held = {
        (r["source"], r["asked"], _confirms(r)): f"{100 * r['right']:.0f}/{100 * r['wrong']:.0f}"
        + ("" if r["verdict"] in ("base", "promoted") else " (rejected)")
        for r in rounds
    }
    sizes = {r["source"]: r["held_out"] for r in rounds if r["asked"]}
    rows = ((name, size, *(held.get((name, *kind), "") for kind in kinds)) for name, size in sizes.items())
    return markdown_table(("source", "held out", *(_name(*kind) for kind in kinds)), rows)


def plot(rounds: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Wrong and right verdicts on held-out items over the number of corrections, a line per source, as SVG.

    Dashed: he presses *Correct* too.
    """
    figure = new_figure(8.0, 3.4)
    for number, key in enumerate(("wrong", "right"), start=1):
        axes = figure.add_subplot(1, 2, number)
        for place, source in enumerate(dict.fromkeys(r["source"] for r in rounds)):
            color = f"C{place}"
            for confirms, stroke in ((False, "-"), (True, "--")):
                of = [
                    r for r in rounds if r["source"] == source and (r["verdict"] == "base" or _confirms(r) == confirms)
                ]
                xs, ys = ([r[name] for r in of] for name in ("corrections", key))
                axes.plot(xs, ys, stroke, color=color, label=None if confirms else source)
                for passed, fill in ((True, color), (False, "white")):
                    dots = [r for r in of if (r["verdict"] in ("base", "promoted")) is passed]
                    xs, ys = ([r[name] for r in dots] for name in ("corrections", key))
                    axes.plot(xs, ys, "o", color=color, markerfacecolor=fill)
        axes.set(
            xlabel="corrections (hollow: rejected; dashed: and Correct)",
            title=f"held-out items with a {key} verdict",
            ylim=(0, 1),
        )
    axes.legend(fontsize="x-small")
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def main(arguments: list[str] | None = None) -> int:
    """Entry point of the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning_benchmark", description="Do corrections help?")
    tasks = parser.add_subparsers(dest="task", required=True)
    measuring = tasks.add_parser("measure", help="train, teach and measure; writes the scores")
    measuring.add_argument("--run", type=Path, required=True, help="folder of the training")
    measuring.add_argument("--packs", type=Path, required=True, help="folder of its packed crops")
    measuring.add_argument("--sources", nargs="+", default=list(SOURCES), help="which are left out, in turn")
    measuring.set_defaults(work=_measure)
    showing = tasks.add_parser("show", help="table and plot of the scores")
    showing.set_defaults(work=_show)
    for each in (measuring, showing):
        each.add_argument("--scores", type=Path, default=SCORES, help="the file of scores")
    return run_command(parser, arguments, lambda chosen: int(chosen.work(chosen)))


def _measure(chosen: argparse.Namespace) -> int:
    root = weights_root(load_settings())
    stage = Stage(chosen.run, chosen.packs, root, current_name(root))
    rounds: list[dict[str, Any]] = []
    for source in chosen.sources:
        with tempfile.TemporaryDirectory() as folder:
            case = stage.case(source, Path(folder))
            for confirms, count in ((False, 0), *itertools.product((False, True), COUNTS)):
                done = teach(case, count, confirms)
                if done is not None:
                    rounds.append({"asked": count, **dataclasses.asdict(done)})
                    tell(str(rounds[-1]))
    chosen.scores.write_text(json.dumps({"version": current_name(root), "rounds": rounds}, indent=1) + "\n", "utf-8")
    return _show(chosen)


def _show(chosen: argparse.Namespace) -> int:
    held = json.loads(chosen.scores.read_text("utf-8"))
    text = [f"# Learning benchmark, version {held['version']}", "", HEAD, "", *summary(held["rounds"]), "", EACH, ""]
    text += table(held["rounds"])
    text += ["", "![plot](images/learning.svg)", ""]
    if (spoken := chosen.scores.with_name("learning_speech.json")).is_file():
        voices = json.loads(spoken.read_text("utf-8"))
        text += [f"## Voices, version {voices['version']}", "", *summary(voices["rounds"]), "", EACH, ""]
        text += [*table(voices["rounds"]), ""]
    chosen.scores.with_suffix(".md").write_text("\n".join(text), "utf-8")
    images = chosen.scores.parent / "images"
    images.mkdir(exist_ok=True)
    plot(held["rounds"], images / "learning.svg")
    print("\n".join(text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
