"""Fit the probe of what is no photograph (`utils/detection/face_report.py`) anew, and tell what it makes of others.

    python -m benchmarks.fit_no_photo --run RUN [--packs PACKS] [--art FOLDER] [--out FILE]

`RUN` is the folder of a finished training: its stored views of the split `train` are the photographs, real and fake, as
they come and after ordinary processing, and with them crops of its pack after strong filters (`filtered_photos.py`).
Beside them stand negatives, drawings, paintings and statues made of other crops (`no_photos.py`). Of the photographs as
they come `MOST_PHOTOS` lie above the threshold, sources left out in turn. The split `val` is only measured, and so are
faces in `FOLDER`, pictures that are no photographs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file
from sklearn.linear_model import LogisticRegression

from benchmarks.common import run_command, tell
from benchmarks.filtered_photos import FILTERS
from benchmarks.no_photos import KINDS, Made
from models.vision_transformer import build_vit
from utils.base_weights import FACE_FILE
from utils.config import load_settings
from utils.detection.face_report import NO_PHOTO
from utils.faces.crops import crop_for_networks, network_view
from utils.faces.detector import CenterFaceDetector
from utils.files import file_sha256
from utils.media.images import decode_image
from utils.media.limits import MediaLimits
from utils.networks import load_vit_base
from utils.training.crop_set import Pack, load_pack
from utils.training.experts import new_network
from utils.training.features import Featurizer, quick_featurizer
from utils.types import MediaKind, Pixels
from utils.weights import weights_root

MOST_PHOTOS = 0.003
TRAINED, HELD = 70, 20
"""Pictures made of each kind, of the split `train` and of `val`."""
STORES = {"train_clean": 2, "train": 3, "train_smooth": 3, "train_blends": 3}
"""Photographs that are learned from: every so manieth view of a store."""
AS_IT_COMES, PROCESSED, FILTERED = range(3)
SHARES = (0.1, 0.05, 0.85)
"""What photographs count by how they are, all together as much as all others."""
STRENGTH, LAYERS, FOLDS = 5e-3, (2, 3), 3

Array = npt.NDArray[np.float32]


def stored(folder: Path, step: int = 1) -> tuple[Array, list[dict[str, object]]]:
    """Tokens of the layers that are read, (N, F), and the views they are of."""
    done = int((folder / "done.txt").read_text(encoding="utf-8"))
    views = json.loads((folder / "views.json").read_text(encoding="utf-8"))[:done:step]
    tokens = np.load(folder / "tokens.npy", mmap_mode="r")[:done:step, LAYERS]
    return tokens.reshape(len(tokens), -1).astype(np.float32), views


def made(
    pack: Pack, splits: Sequence[str], each: int, rng: np.random.Generator, kinds: Mapping[str, Made] = KINDS
) -> list[tuple[str, str, Pixels]]:
    """Kind, source and pixels of `each` pictures of every kind: of other crops, sources by the root of their size."""
    rows = [row for split in splits for row in pack.select(split, MediaKind.IMAGE)]
    sizes: dict[str, int] = {}
    for row in rows:
        sizes[row.source] = sizes.get(row.source, 0) + 1
    odds = np.array([sizes[row.source] ** -0.5 for row in rows])
    chosen = rng.choice(len(rows), each * len(kinds), replace=False, p=odds / odds.sum())
    out = []
    for number, index in enumerate(chosen):
        row, kind = rows[int(index)], list(kinds)[number % len(kinds)]
        pixels = kinds[kind](np.ascontiguousarray(pack.pixels[row.row]), rng)
        out.append((kind, row.source, network_view(pixels, row.face_box())))
    return out


def art(folder: Path, base: Path) -> list[Pixels]:
    """The largest face of each picture in a folder."""
    detector, out = CenterFaceDetector(base / FACE_FILE), []
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".png", ".jpg", ".webp")):
        pixels = decode_image(path, MediaLimits())[0].pixels
        out += [crop_for_networks(pixels, face).pixels for face in detector.detect(pixels)[:1]]
    return out


def tokens_of(pixels: Sequence[Pixels], featurizer: Featurizer) -> Array:
    """(N, F) of the layers that are read."""
    parts = [featurizer(np.stack(pixels[low : low + 32]))[:, LAYERS] for low in range(0, len(pixels), 32)]
    tell(f"{len(pixels)} pictures read")
    return np.concatenate(parts).reshape(len(pixels), -1).astype(np.float32)


def fit(photos: Array, others: Array, states: npt.NDArray[np.int64]) -> tuple[Array, float]:
    """Weights of the tokens and an offset: photographs of every state count as `SHARES` say, all others 1."""
    tokens = np.concatenate([photos, others])
    counts = (np.array(SHARES) / np.bincount(states, minlength=len(SHARES)).clip(1))[states]
    counts = np.concatenate([counts, np.full(len(others), 1 / len(others))])
    mean, spread = tokens.mean(0), tokens.std(0) + 1e-4
    wanted = np.arange(len(tokens)) >= len(photos)
    model = LogisticRegression(C=STRENGTH, max_iter=300).fit(
        (tokens - mean) / spread, wanted, sample_weight=counts * len(tokens) / 2
    )
    weight = model.coef_[0] / spread
    return weight, float(model.intercept_[0] - mean @ weight)


def _work(chosen: argparse.Namespace) -> int:
    rng, base = np.random.default_rng(5), weights_root(load_settings()) / "base"
    pack = load_pack(chosen.packs or chosen.run / "pack")
    expert = new_network(build_vit, tiny=False, seed=0)
    load_vit_base(expert, base)
    featurizer = quick_featurizer(expert, "cpu")
    parts = [stored(chosen.run / "features" / name, step) for name, step in STORES.items()]
    views = [view for _, own in parts for view in own]
    learned = made(pack, ("train", "calib"), TRAINED, rng)
    filtered = made(pack, ("train", "calib"), TRAINED, rng, FILTERS)
    come = [AS_IT_COMES if view["clean"] and not view["processed"] else PROCESSED for view in views]
    states = np.array(come + [FILTERED] * len(filtered))
    photos = np.concatenate([*(part for part, _ in parts), tokens_of([shown for *_, shown in filtered], featurizer)])
    others = tokens_of([pixels for *_, pixels in learned], featurizer)
    sources = np.array([str(view["source"]) for view in views] + [source for _, source, _ in filtered + learned])
    names = np.unique(sources)
    fold_of = dict(zip(names, np.random.default_rng(1).permutation(len(names)) % FOLDS, strict=True))
    folds, unseen = np.array([fold_of[source] for source in sources]), np.zeros(len(photos))
    for fold in range(FOLDS):
        inside, beside = folds[: len(photos)] != fold, folds[len(photos) :] != fold
        weight, bias = fit(photos[inside], others[beside], states[inside])
        unseen[~inside] = photos[~inside] @ weight + bias
    edge = float(np.quantile(unseen[states == AS_IT_COMES], 1 - MOST_PHOTOS))
    weight, bias = fit(photos, others, states)

    def share(tokens: Array) -> float:
        return round(float((tokens @ weight + bias > edge).mean()), 4)

    held, seen = stored(chosen.run / "features" / "val")
    labels = np.array([view["label"] for view in seen])
    shown = made(pack, ("val",), HELD, rng) + made(pack, ("val",), HELD, rng, FILTERS)
    kinds, tokens = np.array([kind for kind, *_ in shown]), tokens_of([pixels for *_, pixels in shown], featurizer)
    found = {"real": share(held[labels == 0]), "fake": share(held[labels == 1])}
    found |= {kind: share(tokens[kinds == kind]) for kind in (*KINDS, *FILTERS)}
    if chosen.art:
        found["art"] = share(tokens_of(art(chosen.art, base), featurizer))
    print(json.dumps({"edge": round(edge, 3), **found}, indent=1))
    layers = np.zeros((max(LAYERS) + 1, len(weight) // len(LAYERS)), np.float32)
    layers[LAYERS, :] = weight.reshape(len(LAYERS), -1)
    save_file({"weight": layers, "bias": np.array([bias - edge], np.float32)}, chosen.out)
    print(f"{chosen.out}: the sha256 of NO_PHOTO in utils/detection/face_report.py is now {file_sha256(chosen.out)}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Fit the probe of what is no photograph, and measure it.")
    parser.add_argument("--run", type=Path, required=True, help="folder of a finished training")
    parser.add_argument("--packs", type=Path, help="folder of its face crops, where it is another")
    parser.add_argument("--art", type=Path, help="pictures that are no photographs, to measure on")
    parser.add_argument("--out", type=Path, default=NO_PHOTO.path, help="the file that is written")
    return run_command(parser, arguments, _work)


if __name__ == "__main__":
    sys.exit(main())
