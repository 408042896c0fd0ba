"""The ensemble beside its peers on the same files: MesoNet-4, each single expert, their plain mean, and the gate.

In domain from the score file of the version; MesoNet-4 is trained here on the same crops and scores the same files.
Out of domain the gate is refitted without each source on the cached calibration logits of the version (its replay
buffer) and measured on that source in the golden set; the experts themselves have seen the source.

    python -m utils.training.compare [--data FOLDER [--packs DIR]] [--version NAME] [--out docs/accuracy.md]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.registry import EXPERT_NAMES, get_card
from utils.config import load_settings
from utils.errors import TelltaleError
from utils.evaluation.datasets import CLIPS_PREFIX, read_samples
from utils.evaluation.scorecard import (
    CLIPS,
    LOGIT_COLUMNS,
    SCORES_FILE,
    cell,
    labels_and_probabilities,
    pseudonym,
    read_scores,
    rounded,
    split_into_sets,
)
from utils.evaluation.scores import ScoreTable
from utils.feedback.feature_set import FeatureSet, load_features
from utils.feedback.golden import GOLDEN_FILE, LEARNING_FOLDER
from utils.feedback.replay import REPLAY_FILE
from utils.metrics import Figure, auc, bootstrap
from utils.tensors import read_tensors
from utils.training.crop_set import Pack, pack_faces
from utils.training.gate_fit import fit_gate, fit_mean, gate_logits
from utils.training.mesonet import score_mesonet, small_views, train_mesonet
from utils.training.views import plan_views
from utils.types import MediaKind
from utils.weights import GATE_FILE, Version, current_name, verify_version, weights_root

Array = npt.NDArray[np.float64]
MESONET, MEAN, GATE = "MesoNet-4", "mean of calibrated experts", "gate"
BEGIN, END = "<!-- comparison: begin -->", "<!-- comparison: end -->"
CLIP_SOURCE = "clips"


@dataclass(frozen=True)
class Compared:
    """One peer beside the gate on one set.

    Args:
        peer: its name.
        auc: of the peer.
        gain: AUC of the gate minus that of the peer, the same items in every draw of the bootstrap.
    """

    peer: str
    auc: Figure
    gain: Figure


def paired_gain(labels: Array, one: Array, two: Array, groups: Sequence[str], *, rounds: int = 1000) -> Figure:
    """AUC of `two` minus AUC of `one` on the same items, with its interval by bootstrap over groups."""

    def gain(drawn: Array, index: Array) -> float:
        chosen = index.astype(int)
        return auc(drawn, two[chosen]) - auc(drawn, one[chosen])

    return bootstrap(gain, labels, np.arange(len(labels), dtype=np.float64), groups, rounds=rounds)


def compare(labels: Array, peers: Mapping[str, Array], groups: Sequence[str], *, rounds: int = 1000) -> list[Compared]:
    """Every peer beside the gate; peers that do not judge all items (NaN) are measured on those that they judge.

    Args:
        labels: (N,) with both classes.
        peers: scores (N,) by name, the gate among them; higher is more fake.
        groups: N names.
        rounds: of the bootstrap.
    """
    out = []
    for name, scores in peers.items():
        known = np.isfinite(scores)
        if not known.any() or len(np.unique(labels[known])) < 2:
            continue
        own = [g for g, k in zip(groups, known, strict=True) if k]
        measured = bootstrap(auc, labels[known], scores[known], own, rounds=rounds)
        gain = paired_gain(labels[known], scores[known], peers[GATE][known], own, rounds=rounds)
        out.append(Compared(name, measured, gain))
    return out


def peers_of(
    rows: Sequence[Mapping[str, str]], scale: Array, shift: Array, mesonet: Mapping[str, float]
) -> dict[str, Array]:
    """Scores of all peers on the rows of a score file.

    Args:
        rows: of a score file.
        scale: (E,) Platt scales of the version's gate.
        shift: (E,) Platt shifts.
        mesonet: logit by the `file` of a row; files that it did not score are NaN.
    """
    raw = np.array([[float(row[c]) if row[c] else np.nan for c in LOGIT_COLUMNS] for row in rows])
    peers: dict[str, Array] = {}
    if mesonet:
        peers[MESONET] = np.array([mesonet.get(row["file"], np.nan) for row in rows])
    peers |= {get_card(name).title: raw[:, e] for e, name in enumerate(EXPERT_NAMES)}
    peers[MEAN] = np.nanmean(raw * scale + shift, axis=1)
    peers[GATE] = labels_and_probabilities(rows)[1]
    return peers


def mesonet_scores(pack: Pack, run: Path, *, per_class: int) -> dict[str, float]:
    """Logits of a MesoNet-4, trained here, of all validation pictures, by the name that score files give a file."""
    model = train_mesonet(pack, run, per_class=per_class, progress=lambda line: print(line, file=sys.stderr))
    views = plan_views(
        pack.select("val", MediaKind.IMAGE), per_class=10**9, blends=0, seed=4, clean=True, balance=False
    )
    logits = score_mesonet(model, small_views(pack, views))
    names = [pseudonym(Path(pack.rows[view.row].file).name) for view in views]
    return dict(zip(names, logits.tolist(), strict=True))


def out_of_domain(replay: FeatureSet, golden: FeatureSet, *, rounds: int = 1000) -> dict[str, list[Compared]]:
    """Gate and mean refitted without each source, and each expert, on that source; by source, and all together.

    Args:
        replay: cached logits of the calibration split.
        golden: cached logits of validation.
        rounds: of the bootstrap.
    """
    held, seen = table_of(replay), table_of(golden)
    out: dict[str, list[Compared]] = {}
    parts: list[tuple[Array, dict[str, Array], list[str]]] = []
    for source in sorted(set(seen.sources)):
        rest = held.select(np.array([s != source for s in held.sources]))
        own = seen.select(np.array([s == source for s in seen.sources]))
        peers = {get_card(name).title: own.logits[:, e] for e, name in enumerate(EXPERT_NAMES)}
        peers[MEAN] = gate_logits(fit_mean(rest), own)
        peers[GATE] = gate_logits(fit_gate(rest).gate, own)
        parts.append((own.labels, peers, list(own.groups)))
        if len(np.unique(own.labels)) == 2:
            out[source] = compare(own.labels, peers, list(own.groups), rounds=rounds)
    names = list(parts[0][1])
    labels = np.concatenate([labels for labels, _, _ in parts])
    joined = {name: np.concatenate([peers[name] for _, peers, _ in parts]) for name in names}
    out["all, each left out"] = compare(labels, joined, [g for _, _, groups in parts for g in groups], rounds=rounds)
    return out


def table_of(features: FeatureSet) -> ScoreTable:
    """A feature set as a table of scores; the many small sources of clips are one."""
    sources = tuple(CLIP_SOURCE if s.startswith(CLIPS_PREFIX) else s for s in features.sources)
    kinds = tuple(MediaKind.VIDEO.value if s == CLIP_SOURCE else MediaKind.IMAGE.value for s in sources)
    return ScoreTable(
        features.keys, kinds, features.labels.astype(np.float64), sources, features.generators, features.groups,
        features.logits.astype(np.float64), features.quality.astype(np.float64),
    )  # fmt: skip


def comparison_markdown(
    known: Mapping[str, Sequence[Compared]], unseen: Mapping[str, Sequence[Compared]], version: str
) -> str:
    """Both comparisons as the part of `docs/accuracy.md` between its two marks."""
    lines = [
        BEGIN,
        f"Made by `python -m utils.training.compare` for {version}. *Gain* is the AUC of the gate minus that of the",
        "peer on the same files, with its 95 % interval by bootstrap over groups; where it lies above 0, the gate is",
        "better. MesoNet-4, where it is listed, was trained on the same crops as the ensemble, for some minutes.",
        "",
    ]
    lines += _table(known)
    lines += [
        "",
        "Out of domain: gate and calibration refitted without the source, on the cached calibration logits of the",
        "version; the experts have seen it.",
        "",
    ]
    return "\n".join([*lines, *_table(unseen), END])


def _table(found: Mapping[str, Sequence[Compared]]) -> list[str]:
    lines = ["| set | peer | AUC | gain of the gate |", "|---|---|---|---|"]
    for name, compared in found.items():
        for one in compared:
            gain = "" if one.peer == GATE else cell(rounded(one.gain))
            lines.append(f"| {name} | {one.peer} | {cell(rounded(one.auc))} | {gain} |")
    return lines


def replace_part(page: str, part: str) -> str:
    """The page with the part between the marks replaced, or appended where there are no marks."""
    if BEGIN not in page or END not in page:
        return page.rstrip() + "\n\n## The gate beside its peers\n\n" + part + "\n"
    return page[: page.index(BEGIN)] + part + page[page.index(END) + len(END) :]


def _known(version: Version, mesonet: Mapping[str, float], rounds: int) -> dict[str, list[Compared]]:
    gate = read_tensors(version.folder / GATE_FILE)
    out = {}
    for name, rows in split_into_sets(read_scores(version.folder / SCORES_FILE)).items():
        labels, _ = labels_and_probabilities(rows)
        if 0 < labels.mean() < 1:
            peers = peers_of(rows, gate["scale"], gate["shift"], mesonet if name != CLIPS else {})
            out[name] = compare(labels, peers, [row["group"] for row in rows], rounds=rounds)
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m utils.training.compare`; exit code 3 when files or version cannot be used."""
    parser = argparse.ArgumentParser(description="The gate beside MesoNet-4, the single experts and their mean.")
    parser.add_argument("--data", type=Path, help="what the version was trained on, for MesoNet-4; left out without it")
    parser.add_argument("--packs", type=Path, default=Path("runs/compare/pack"), help="folder of the face crops")
    parser.add_argument("--run", type=Path, default=Path("runs/compare/mesonet"), help="checkpoints of MesoNet-4")
    parser.add_argument("--per-class", type=int, default=1000, help="views per source and label for MesoNet-4")
    parser.add_argument("--version", default="", help="default: the one in use")
    parser.add_argument("--rounds", type=int, default=1000, help="of the bootstrap")
    parser.add_argument("--out", type=Path, default=Path("docs/accuracy.md"), help="the page that holds the part")
    chosen = parser.parse_args(arguments)
    try:
        settings = load_settings()
        root = weights_root(settings)
        version = verify_version(root, chosen.version or settings.weights.version or current_name(root))
        mesonet: dict[str, float] = {}
        if chosen.data:
            from utils.base_weights import FACE_FILE
            from utils.faces.detector import CenterFaceDetector

            detector = CenterFaceDetector(root / "base" / FACE_FILE)
            pack = pack_faces(read_samples(chosen.data), chosen.packs, detector)
            mesonet = mesonet_scores(pack, chosen.run, per_class=chosen.per_class)
        known = _known(version, mesonet, chosen.rounds)
        folder = root / LEARNING_FOLDER / version.name
        sets = [load_features(folder / name)[0] for name in (REPLAY_FILE, GOLDEN_FILE)]
        part = comparison_markdown(known, out_of_domain(*sets, rounds=chosen.rounds), version.name)
        page = chosen.out.read_text(encoding="utf-8") if chosen.out.is_file() else "# Comparison\n"
    except TelltaleError as error:
        print(error, file=sys.stderr)
        return 3
    chosen.out.write_text(replace_part(page, part), encoding="utf-8")
    print(part)
    return 0


if __name__ == "__main__":
    sys.exit(main())
