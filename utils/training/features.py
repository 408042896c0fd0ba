"""Features of the ViT for many views, computed once and kept on disk, so that heads train in seconds."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from models.cards import expert_card
from models.graphs import build_graph
from models.preprocess import prepare, to_images
from utils.detection.processor import compile_graph, cpu_has_bf16
from utils.files import replace_file
from utils.tensors import state_arrays
from utils.training import processes
from utils.training.crop_set import Pack
from utils.training.loop import bar, fast_bfloat16
from utils.training.planning import CLEAN, FRAMES, RECODED, SMOOTH, TrainingPlan, planned
from utils.training.traces import Autoencoder, Recoder
from utils.training.views import Renderer, View, view_quality
from utils.types import Pixels

if TYPE_CHECKING:  # its packages take seconds to import
    from models.vision_transformer import ViTExpert

BATCH = 16
VIEWS_FILE = "views.json"
SAVE_EVERY = 32
"""Batches between two saves; a stopped extraction loses at most these."""

Halves = npt.NDArray[np.float16]


Featurizer = Callable[[Pixels], Halves]
"""(B, S, S, 3) uint8 crops to their (B, L, 2D) tapped tokens."""


Rendered = Renderer | Recoder
"""The pixels of views by their number."""


class TorchFeaturizer:
    """The reference: the ViT as the product runs it.

    Args:
        bfloat16: mixed precision, for what is only learned from; what is measured is computed without.
    """

    def __init__(self, expert: ViTExpert, device: str = "cpu", *, tiny: bool = False, bfloat16: bool = False) -> None:
        self._expert = expert.eval().to(device)
        self._device = device
        self._bfloat16 = bfloat16
        self._card = expert_card("vit", tiny=tiny)

    def __call__(self, batch: Pixels) -> Halves:
        images = to_images(batch).to(self._device)
        mixed = torch.autocast(self._device, dtype=torch.bfloat16, enabled=self._bfloat16)
        with torch.inference_mode(), mixed:
            tokens = self._expert.tap(prepare(images, self._card))
        return tokens.cpu().half().numpy()


class OpenVinoFeaturizer:
    """The graph that is served, in bf16 where the processor multiplies it: .67 of torch's time there, .76 elsewhere."""

    def __init__(self, expert: ViTExpert, *, tiny: bool = False, threads: int) -> None:
        self._card = expert_card("vit", tiny=tiny)
        precision = "bf16" if cpu_has_bf16() else "fp32"
        graph = build_graph("vit", state_arrays(expert), tiny=tiny, precision=precision)
        self._request = compile_graph(graph, precision=precision, threads=threads)

    def __call__(self, batch: Pixels) -> Halves:
        self._request.infer({0: prepare(to_images(batch), self._card).numpy()})
        return np.asarray(self._request.get_output_tensor(2).data, np.float16)


def quick_featurizer(expert: ViTExpert, device: str, *, tiny: bool = False) -> Featurizer:
    """What computes features that are only learned from, in bf16 where that is faster."""
    if device == "cpu" and not tiny:
        return OpenVinoFeaturizer(expert, threads=torch.get_num_threads())
    return TorchFeaturizer(expert, device, tiny=tiny, bfloat16=fast_bfloat16(device))


def fingerprint(views: Sequence[View]) -> str:
    """What a store writes down of its views, to know them again."""
    return json.dumps([dataclasses.asdict(view) for view in views])


class FeatureStore:
    """Pixels, tokens and quality of a list of views, in one folder; extraction continues where it stopped.

    Args:
        views: what is in it, in order.
    """

    def __init__(self, folder: Path, views: Sequence[View]) -> None:
        self.folder = folder
        self.views = tuple(views)
        processes.in_turn(self._claim)

    def _claim(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        marker = self.folder / VIEWS_FILE
        if not marker.is_file() or marker.read_text(encoding="utf-8") != fingerprint(self.views):
            for old in self.folder.glob("*.npy"):
                old.unlink()
            (self.folder / "done.txt").unlink(missing_ok=True)
            marker.write_text(fingerprint(self.views), encoding="utf-8")

    @property
    def done(self) -> int:
        """Number of views whose features are on disk."""
        marker = self.folder / "done.txt"
        return int(marker.read_text(encoding="utf-8")) if marker.is_file() else 0

    def _array(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[np.generic]:
        path = self.folder / f"{name}.npy"
        if path.is_file():
            return np.load(path, mmap_mode="r+")  # type: ignore[no-any-return]
        return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)

    def extract(self, pack: Pack, featurizer: Featurizer, renderer: Rendered | None = None) -> None:
        """Render and featurize every view that is not done yet; of several processes each takes batches in turn.

        Args:
            renderer: gives a view's pixels by its number; None renders the views of the pack.
        """
        start, count = self.done, len(self.views)
        renderer = renderer or Renderer(pack, self.views)
        shown = bar(f"features of {self.folder.name}", count, start)
        for number, low in enumerate(range(start, count, BATCH * processes.count())):
            own = low + BATCH * processes.rank()
            for first, made in processes.gathered((own, self._made(pack, renderer, featurizer, own))):
                for name, values in made.items():
                    self._array(name, (count, *values.shape[1:]), values.dtype)[first : first + len(values)] = values
            high = min(low + BATCH * processes.count(), count)
            if processes.rank() == 0 and (number % SAVE_EVERY == SAVE_EVERY - 1 or high == count):
                replace_file(self.folder / "done.txt", str(high).encode())
            shown.update(high - low)
        shown.close()
        processes.wait()

    def _made(
        self, pack: Pack, renderer: Rendered, featurizer: Featurizer, low: int
    ) -> dict[str, npt.NDArray[np.generic]]:
        """What is stored of the views from `low` on, at most a batch, by name."""
        part = self.views[low : low + BATCH]
        if not part:
            return {}
        pixels = np.stack([renderer[i] for i in range(low, low + len(part))])
        quality = np.stack([view_quality(pack, v, p) for v, p in zip(part, pixels, strict=True)])
        return {"pixels": pixels, "tokens": featurizer(pixels), "quality": quality.astype(np.float32)}

    def load(self, name: str) -> npt.NDArray[np.generic]:
        """The finished rows of `pixels`, `tokens` or `quality`, memory-mapped."""
        return np.load(self.folder / f"{name}.npy", mmap_mode="r")[: self.done]  # type: ignore[no-any-return]

    def take(self, name: str, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.generic]:
        """Some finished rows of what `load` gives, in the order of `rows`, in memory."""
        return np.asarray(self.load(name)[rows])

    def labels(self) -> npt.NDArray[np.float32]:
        """(N,) float32 labels of the finished rows."""
        return np.array([view.label for view in self.views[: self.done]], np.float32)


Stores = dict[str, FeatureStore]
"""The feature stores of a training by their names."""


class Features:
    """Some rows of finished stores that stand one after another, for training.

    Args:
        stores: what they are of; such rows again, too.
        keep: (N,) which of all their views, as a mask or as indices; None for all.
    """

    def __init__(
        self, stores: Sequence[Stored], keep: npt.NDArray[np.bool_] | npt.NDArray[np.int64] | None = None
    ) -> None:
        self._stores = tuple(stores)
        self._ends = np.cumsum([len(store.labels()) for store in stores])
        views = [view for store in stores for view in store.views[: len(store.labels())]]
        keep = np.ones(len(views), bool) if keep is None else keep
        self._rows = np.flatnonzero(keep) if keep.dtype == bool else np.asarray(keep, np.int64)
        self.views: tuple[View, ...] = tuple(views[int(i)] for i in self._rows)

    def load(self, name: str) -> npt.NDArray[np.generic]:
        """As `FeatureStore.load`, in memory."""
        return self.take(name, np.arange(len(self._rows)))

    def take(self, name: str, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.generic]:
        """As `FeatureStore.take`; reads only these rows, so that the whole need not fit into memory."""
        wanted = self._rows[rows]
        held_by = np.searchsorted(self._ends, wanted, side="right")
        out: npt.NDArray[np.generic] | None = None
        for number, store in enumerate(self._stores):
            here = held_by == number
            part = store.take(name, wanted[here] - (self._ends[number - 1] if number else 0))
            out = np.empty((len(wanted), *part.shape[1:]), part.dtype) if out is None else out
            out[here] = part
        return np.empty(0) if out is None else out

    def labels(self) -> npt.NDArray[np.float32]:
        """(N,) float32 labels."""
        return np.array([view.label for view in self.views], np.float32)


Stored = FeatureStore | Features
"""What training reads: a store, or rows of several."""


def batches(count: int, size: int, rng: np.random.Generator) -> Iterator[npt.NDArray[np.int64]]:
    """Random batches of indices below `count`; a last incomplete one is dropped when there is a full one."""
    order = rng.permutation(count)
    full = max(1, count // size)
    for i in range(full):
        yield order[i * size : (i + 1) * size]


def make_stores(
    pack: Pack, run: Path, plan: TrainingPlan, reference: ViTExpert, *, device: str, decoder: Autoencoder | None = None
) -> Stores:
    """Features of all planned views that there are, by the names of `planning.planned`.

    Args:
        decoder: what real crops are decoded again by; None leaves them out.
    """
    featurizer = quick_featurizer(reference, device, tiny=plan.tiny)
    stores = {}
    for name, views in planned(pack, plan).items():
        again = Recoder(pack, views, decoder, bfloat16=fast_bfloat16("cpu")) if decoder and name == RECODED else None
        if views and (again or name != RECODED):
            stores[name] = FeatureStore(run / "features" / name, views)
            stores[name].extract(pack, featurizer, again)
    return stores


def student_views(stores: Mapping[str, Stored]) -> Features:
    """What CNN and ResNeXt-50 learn from: all training views but those as they come and after noise reduction alone."""
    of_training = {name: store for name, store in stores.items() if name.startswith("train")}
    return Features([store for name, store in of_training.items() if name not in (CLEAN, FRAMES, SMOOTH)])


def head_views(stores: Mapping[str, Stored]) -> Features:
    """What the ViT's head learns from: all training views."""
    return Features([store for name, store in stores.items() if name.startswith("train")])
