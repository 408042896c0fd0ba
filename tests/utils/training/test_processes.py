"""Two processes learn what one learns, also when one of them is killed; features are the same, one of them writes."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch._C._distributed_c10d import HashStore

from tests.utils.training import together
from utils.errors import TrainingDataError
from utils.training import features, processes
from utils.training.crop_set import Pack
from utils.training.planning import plan_balanced
from utils.types import MediaKind

pytestmark = pytest.mark.usefixtures("one_thread")


def test_two_processes_do_what_one_does(
    tmp_path: Path, make_pack: Callable[..., Pack], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("BATCH", "SAVE_EVERY"):
        monkeypatch.setattr(features, name, getattr(features, name))  # given back afterwards
    pack = make_pack(pictures=16)
    views = plan_balanced(pack.select("train", MediaKind.IMAGE), 14, seed=1)
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
        (folder / "pack").write_bytes(pickle.dumps((pack, views)))
    together.main(folders[0])
    (folders[1] / "die").touch()
    command = [sys.executable, together.__file__, str(folders[1])]
    root = Path(__file__).resolve().parents[3]
    environ = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=root, env=environ, check=False, timeout=300)
    assert done.returncode == 0
    assert not (folders[1] / "die").exists()
    one, two = (load_file(folder / f"of-{n}.safetensors") for n, folder in enumerate(folders, start=1))
    for name, values in one.items():
        assert torch.allclose(values, two[name], atol=1e-4), name
    for name in ("pixels", "tokens", "quality"):
        assert np.array_equal(*(np.load(folder / "store" / f"{name}.npy") for folder in folders)), name
    lines = [(folder / "toy" / "metrics.jsonl").read_text(encoding="utf-8").count("\n") for folder in folders]
    assert lines == [3, 3]


def test_cores_are_divided_whatever_torchrun_says_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    set_to: list[int] = []
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    monkeypatch.setattr(processes, "usable_cores", lambda: 8)
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    monkeypatch.setattr(processes, "rendezvous", lambda *_, **__: iter([(HashStore(), 0, 3)]))
    monkeypatch.setattr(dist, "init_process_group", lambda *_, **__: None)
    for threads in (0, 5):
        with processes.joined("cpu", threads=threads):
            pass
    assert set_to == [2, 5]


def test_a_batch_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = torch.arange(5)
    assert torch.equal(processes.share(batch), batch)
    monkeypatch.setattr(processes, "count", lambda: 3)
    shares = []
    for number in range(3):
        monkeypatch.setattr(processes, "rank", lambda number=number: number)
        shares.append(processes.share([0, 1, 2, 3, 4]))
    assert shares == [[0, 3], [1, 4], [2]]
    with pytest.raises(TrainingDataError, match="start fewer"):
        processes.share([0, 1])
