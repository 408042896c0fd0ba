"""The training loop: two plain functions and one dataclass of hyper-parameters, with checkpoints that resume.

Every network is trained by `fit`; what differs between them is where the batches come from and what the loss is.
Progress of long stages goes to standard error: a bar that is drawn in place, and lines above it.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from utils.errors import TrainingDataError
from utils.log import get_logger
from utils.training import processes

SELDOM_S = 30.0
"""Between two states of a bar where standard error is a file; no bar for what is done sooner."""


def tell(line: str) -> None:
    """Write a line; on a terminal above the bar."""
    if sys.stderr.isatty():
        tqdm.write(line, file=sys.stderr)
    else:
        print(line, file=sys.stderr, flush=True)


def bar(what: str, total: int, done: int = 0, *, over: Iterable[Any] | None = None) -> tqdm:
    """A bar to go `over` things with, or to `update` and leave as a context; `done` are there from earlier."""
    pause = 0.1 if sys.stderr.isatty() else SELDOM_S
    return tqdm(over, desc=what, total=total, initial=done, leave=False, mininterval=pause, delay=pause)


log = get_logger(__name__)

CHECKPOINT = "checkpoint.safetensors"
FLOOR = 0.01
"""Learning rate at the end as a share of the highest."""


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters of one network's training.

    Args:
        lr: highest learning rate; a linear warm-up over `warmup` of all steps leads to it, a cosine away from it.
        patience: epochs without a better validation score until it stops early.
        average: decay per step of the averaged weights that are validated and kept (EMA); 0 keeps the last.
        save_every_s: seconds between two checkpoints within an epoch.
    """

    epochs: int = 8
    batch: int = 32
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.05
    clip: float = 1.0
    patience: int = 3
    average: float = 0.99
    save_every_s: float = 120.0
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch, self.patience) < 1 or self.lr <= 0 or not 0 <= self.average < 1:
            raise ValueError(f"epochs, batch and patience start at 1, lr above 0, average is within 0..1: {self}")


Batch = tuple[Tensor, ...]
Batches = Callable[[int], Iterator[Batch]]
"""Epoch number to its batches; the same number gives the same batches, so that a stopped epoch can go on."""


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """Linear warm-up, then a cosine to the floor. Source: Loshchilov and Hutter 2017, SGDR."""
    warm = max(1, int(recipe.warmup * steps))
    if step < warm:
        return recipe.lr * (step + 1) / warm
    done = (step - warm) / max(1, steps - warm)
    return recipe.lr * (FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def _average(kept: dict[str, Tensor], model: nn.Module, decay: float) -> None:
    for name, value in model.state_dict().items():
        if value.dtype.is_floating_point:
            kept[name].mul_(decay).add_(value, alpha=1 - decay)
        else:
            kept[name].copy_(value)


@dataclass(frozen=True)
class Task:
    """What one network learns from and how it is judged.

    Args:
        score_of: score of the averaged model on held-out data (higher is better), called after each epoch.
    """

    batches: Batches
    steps: int
    loss_of: Callable[[nn.Module, Batch], Tensor]
    score_of: Callable[[nn.Module], float]


@dataclass
class _Position:
    """Where a run stands; everything of it that is not a tensor."""

    epoch: int = 0
    done: int = 0
    best_epoch: int = -1
    best_score: float = -math.inf


def fit(
    model: nn.Module, task: Task, recipe: Recipe, folder: Path, *, device: str = "cpu", bfloat16: bool = False
) -> None:
    """Train `model` with AdamW and load its best averaged state; resume from `folder` when a run was stopped.

    Args:
        folder: for the checkpoint and `metrics.jsonl`.
        bfloat16: mixed precision.

    Raises:
        TrainingDataError: the loss or the score is not finite, or the checkpoint in `folder` is of another network.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.to(device).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=recipe.lr, weight_decay=recipe.weight_decay)
    averaged = {k: v.detach().clone() for k, v in model.state_dict().items()}
    run = _Run(model, optimizer, averaged, {}, _Position(), folder, device, bfloat16)
    run.resume()
    processes.wait()
    at = run.at
    while at.epoch < recipe.epochs and at.epoch - at.best_epoch <= recipe.patience:
        started = time.monotonic()
        loss = _train_epoch(run, task, recipe)
        score = processes.agreed(run.score(task) if processes.rank() == 0 else 0.0)
        if not math.isfinite(score):
            raise TrainingDataError(f"{folder.name} cannot be validated: the held-out data need real and fake items.")
        if score > at.best_score:
            at.best_score, at.best_epoch = score, at.epoch
            run.best = {k: v.detach().cpu().clone() for k, v in run.averaged.items()}
        line = {"epoch": at.epoch, "loss": loss, "score": score, "seconds": round(time.monotonic() - started, 1)}
        at.epoch, at.done = at.epoch + 1, 0
        if processes.rank() == 0:
            with (folder / "metrics.jsonl").open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line | {"recipe": asdict(recipe)}) + "\n")
            tell(f"{folder.name} epoch {line['epoch']}: loss {loss:.4f}, validation score {score:.4f}")
            run.save()
    run.best = processes.agreed(run.best)  # running statistics are each process's own
    model.load_state_dict(run.best)
    model.to("cpu").eval()


def fast_bfloat16(device: str) -> bool:
    """Whether mixed precision pays: on a GPU, and on processors that multiply bfloat16 (AMX, or AVX-512 with it)."""
    able = torch.cpu.get_capabilities()
    return device != "cpu" or bool(able.get("amx_bf16", False) or able.get("avx512_bf16", False))


def _train_epoch(run: _Run, task: Task, recipe: Recipe) -> float:
    """One pass over the batches, from where it was stopped; gives the mean loss."""
    losses: list[float] = []
    trained = [p for g in run.optimizer.param_groups for p in g["params"]]
    loss_of, first = processes.shared_loss(run.model, task.loss_of), processes.rank() == 0
    last_save = time.monotonic()
    shown = bar(f"{run.folder.name} epoch {run.at.epoch}", task.steps, run.at.done)
    for number, batch in enumerate(task.batches(run.at.epoch)):
        if number < run.at.done:
            continue
        step = run.at.epoch * task.steps + number
        # dropout belongs to the step: a resumed run draws the same
        torch.manual_seed(recipe.seed * 1_000_003 + step + processes.rank() * 1_000_000_007)
        for group in run.optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step, recipe.epochs * task.steps)
        with torch.autocast(run.device, dtype=torch.bfloat16, enabled=run.bfloat16):
            own = tuple(processes.share(part) for part in batch)
            loss = loss_of(tuple(part.to(run.device, non_blocking=True) for part in own))
        if not torch.isfinite(loss):
            raise TrainingDataError(f"The loss of {run.folder.name} is {loss.item()} at step {step}.")
        run.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(trained, recipe.clip)
        run.optimizer.step()
        # the average follows closely at first, else it would remember the random start
        decay = min(recipe.average, (1 + step) / (10 + step)) if recipe.average else 0.0
        _average(run.averaged, run.model, decay)
        losses.append(loss.item())
        run.at.done, now = number + 1, time.monotonic()
        shown.set_postfix(loss=f"{sum(losses) / len(losses):.4f}", refresh=False)
        shown.update()
        if first and now - last_save > recipe.save_every_s:
            last_save = now
            run.save()
    shown.close()
    return sum(losses) / len(losses) if losses else 0.0


@dataclass
class _Run:
    """Everything of a training run that a checkpoint keeps. Tensors go to safetensors, numbers to JSON: no pickle."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    averaged: dict[str, Tensor]
    best: dict[str, Tensor]
    at: _Position
    folder: Path
    device: str
    bfloat16: bool

    def score(self, task: Task) -> float:
        """Score of the averaged weights; the current ones are put back."""
        current = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.model.load_state_dict(self.averaged)
        self.model.eval()
        score = task.score_of(self.model)
        self.model.load_state_dict(current)
        self.model.train()
        return score

    def save(self) -> None:
        """Write the checkpoint in one step: position and tensors belong to the same file."""
        tensors = {f"model/{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"averaged/{k}": v for k, v in self.averaged.items()}
        tensors |= {f"best/{k}": v for k, v in self.best.items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{k}": v for k, v in state.items()}
        partial = self.folder / "checkpoint.tmp"
        whole = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
        save_file(whole, partial, metadata={"at": json.dumps(asdict(self.at))})
        partial.replace(self.folder / CHECKPOINT)

    def resume(self) -> None:
        """Take up the checkpoint of an earlier run, if there is one."""
        path = self.folder / CHECKPOINT
        if not path.is_file():
            return
        try:
            self._take(path)
        except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
            raise TrainingDataError(
                f"The checkpoint {path} is damaged or of another network; remove it or name another run: {error}"
            ) from error
        log.info("Resumed %s at epoch %d, step %d", self.folder.name, self.at.epoch, self.at.done)

    def _take(self, path: Path) -> None:
        with safe_open(path, framework="pt", device=self.device) as held:
            parts: dict[str, dict[str, Tensor]] = {"model": {}, "averaged": {}, "best": {}, "optimizer": {}}
            for key in held.keys():  # noqa: SIM118 (the reader cannot be iterated over)
                kind, _, name = key.partition("/")
                parts[kind][name] = held.get_tensor(key)
            self.at = _Position(**json.loads(held.metadata()["at"]))
        self.model.load_state_dict(parts["model"])
        self.averaged, self.best = parts["averaged"], parts["best"]
        states: dict[int, dict[str, Tensor]] = {}
        for name, value in parts["optimizer"].items():
            index, _, field = name.partition("/")
            states.setdefault(int(index), {})[field] = value
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": states})
