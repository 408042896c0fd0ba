"""What each process of test_processes.py does: `main` in one process, or `together.py FOLDER` for two of them.

The two are started, watched and started anew by what `torchrun --standalone --nproc-per-node 2 --max-restarts 1` is
made of; forked, so that torch is imported once. The second dies once in the middle of the second epoch, if there is a
file `die` in the folder.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.nn import functional

from utils.errors import TrainingDataError
from utils.training import features, processes
from utils.training.features import FeatureStore
from utils.training.loop import Batch, Recipe, Task, fit
from utils.types import Pixels

STEPS, BATCH = 4, 16


def task(folder: Path) -> Task:
    """Pictures whose brightness is the label."""

    def draw(rng: np.random.Generator, count: int) -> Batch:
        labels = torch.from_numpy((rng.random(count) < 0.5).astype(np.float32))
        pictures = torch.from_numpy(rng.normal(0, 0.5, (count, 1, 6, 6)).astype(np.float32))
        return pictures + labels.view(-1, 1, 1, 1), labels

    def make(epoch: int) -> Iterator[Batch]:
        for number in range(STEPS):
            if (epoch, number, processes.rank()) == (1, 2, 1) and (folder / "die").exists():
                (folder / "die").unlink()
                os.kill(os.getpid(), signal.SIGKILL)
            yield draw(np.random.default_rng([epoch, number]), BATCH)

    def loss_of(net: nn.Module, batch: Batch) -> Tensor:
        return functional.binary_cross_entropy_with_logits(net(batch[0]).squeeze(1), batch[1])

    def score_of(net: nn.Module) -> float:
        pictures, labels = draw(np.random.default_rng(99), 64)
        with torch.inference_mode():
            return -float(loss_of(net, (pictures, labels)))

    return Task(make, STEPS, loss_of, score_of)


def featurize(batch: Pixels) -> features.Halves:
    means = batch.reshape(len(batch), -1).mean(1)
    return np.stack([means, -means], 1).astype(np.float16)[:, None]


def refuse(folder: Path) -> None:
    if processes.rank() > 0:
        raise AssertionError("the first process has refused; the others need not try")
    raise TrainingDataError(f"{folder} cannot be used.")


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    features.BATCH, features.SAVE_EVERY = 3, 2
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 1))
    recipe = Recipe(epochs=3, batch=BATCH, lr=0.02, average=0.8, patience=9, save_every_s=0.0)
    with processes.joined("cpu", threads=1):
        with contextlib.suppress(TrainingDataError):
            processes.in_turn(lambda: refuse(folder))
            raise AssertionError("what the first process refuses ends all")
        fit(model, task(folder), recipe, folder / "toy")
        pack, views = pickle.loads((folder / "pack").read_bytes())
        FeatureStore(folder / "store", views).extract(pack, featurize)
        if processes.rank() == 0:
            save_file(dict(model.state_dict()), folder / f"of-{processes.count()}.safetensors")


if __name__ == "__main__":
    given = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=2, max_restarts=1, run_id="together", rdzv_backend="c10d",
        rdzv_endpoint="localhost:0", start_method="fork", monitor_interval=0.1,
    )  # fmt: skip
    elastic_launch(given, main)(Path(sys.argv[1]))
