"""Training by several processes that `torchrun` starts: each learns from its share of a batch, the first one writes.

All go the same way through a training, so that what one waits for the others come to. Without `torchrun` everything
here does nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from utils.detection.export import Asked
from utils.detection.processor import usable_cores
from utils.errors import ConfigError, TelltaleError, TrainingDataError

PATIENCE = timedelta(days=2)  # the others wait while the first process searches faces
T = TypeVar("T")
S = TypeVar("S", Tensor, list[Any])


def count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0; the first one writes."""
    return dist.get_rank() if dist.is_initialized() else 0


@contextmanager
def joined(device: str, *, threads: int = 0) -> Iterator[None]:
    """Take part in what `torchrun` has started; gloo between processors, NCCL between GPUs.

    Args:
        threads: of each process; 0 divides the cores among the processes of this machine.

    Raises:
        ConfigError: there are more processes on this machine than GPUs.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if device == "cuda":
        if here > torch.cuda.device_count():
            raise ConfigError(f"Each process needs a GPU of its own; there are {torch.cuda.device_count()} here.")
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    else:  # `torchrun` says one thread for each (OMP_NUM_THREADS)
        torch.set_num_threads(threads or max(1, usable_cores() // here))
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    store, number, size = next(rendezvous("env://", timeout=PATIENCE))
    # torchrun keeps its store over restarts: addresses of processes that have ended are in it, and would be tried
    own = PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
    dist.init_process_group(backend, store=own, rank=number, world_size=size, timeout=PATIENCE)
    try:
        yield
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def in_turn(make: Callable[[], T]) -> T:
    """Have the first process do something that writes files, and the others after it, who find them.

    Raises:
        TelltaleError: what ended it at the first process, at all of them.
    """
    made: list[T] = []
    failed: TelltaleError | None = None
    if rank() == 0:
        try:
            made.append(make())
        except TelltaleError as error:
            failed = error
    if (failed := agreed(failed)) is not None:
        raise failed
    return made[0] if made else make()


def wait() -> None:
    """Until all processes are here."""
    agreed(None)


def leave_to_first() -> None:
    """From here on the first process goes alone; the others end."""
    if count() > 1:
        wait()
        number = rank()
        dist.destroy_process_group()
        if number > 0:
            raise SystemExit(0)


def agreed(value: T) -> T:
    """The value that the first process has."""
    held = [value]
    if count() > 1:
        dist.broadcast_object_list(held)
    return held[0]


def gathered(value: T) -> list[T]:
    """The values of all processes in their order, at the first one; nothing at the others."""
    if count() == 1:
        return [value]
    found: list[Any] | None = [None] * count() if rank() == 0 else None
    dist.gather_object(value, found)
    return found or []


def share(items: S) -> S:
    """What this process takes of the items, or rows of a tensor, of a batch.

    Raises:
        TrainingDataError: there are fewer than processes.
    """
    if len(items) < count():
        raise TrainingDataError(f"A batch of {len(items)} cannot be shared by {count()} processes; start fewer.")
    return items[rank() :: count()]


def shared_loss(model: nn.Module, loss_of: Callable[[nn.Module, Any], Tensor]) -> Callable[[Any], Tensor]:
    """The loss of a batch, whose gradients become the mean over all processes."""
    loss = Asked(model, loss_of)
    return DistributedDataParallel(loss) if count() > 1 else loss
