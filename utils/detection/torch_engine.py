"""The reference engine: the networks in torch, in fp32 on a processor, in half precision on a GPU."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import nullcontext

import numpy as np
import torch

from models.cards import IMAGE_EXPERTS
from models.ensemble_model import Ensemble
from utils.detection.engine import BATCH, Answers, Engine, NumericGate
from utils.detection.processor import usable_cores
from utils.errors import ConfigError
from utils.types import Floats, Pixels

GPU_BATCH = 64


class TorchEngine(Engine):
    """The reference engine.

    On a GPU the experts compute in half precision under autocast, with channels last.

    Args:
        device: cpu, cuda or auto (cuda where there is one).
        compiled: let torch compile the experts; on a GPU only.

    Raises:
        ConfigError: cuda is asked for and not there.
    """

    name = "torch"

    def __init__(
        self, ensemble: Ensemble, gate: NumericGate, *, device: str = "auto", threads: int = 0, compiled: bool = False
    ) -> None:
        has_cuda = torch.cuda.is_available() if device != "cpu" else False
        if device == "cuda" and not has_cuda:
            raise ConfigError("[detection] device is cuda, but torch finds no GPU here.")
        self.device = "cuda" if has_cuda else "cpu"
        torch.set_num_threads(threads or usable_cores())
        self._ensemble = ensemble.to(self.device).eval()
        if has_cuda:
            self._ensemble = self._ensemble.to(memory_format=torch.channels_last)
            if compiled:
                for name in IMAGE_EXPERTS:
                    if name in self._ensemble.experts:
                        self._ensemble.experts[name].compile(dynamic=True)
        super().__init__(gate, batch=GPU_BATCH if has_cuda else BATCH)

    @property
    def networks(self) -> Ensemble:
        """The networks themselves."""
        return self._ensemble

    @property
    def precisions(self) -> Mapping[str, str]:
        """fp16 on a GPU, fp32 on a processor."""
        return dict.fromkeys(self._ensemble.experts, "fp16" if self.device == "cuda" else "fp32")

    def answer_batch(self, crops: Pixels, only: Collection[str] | None = None) -> Answers:
        """See `Engine.answer_batch`."""
        images = torch.from_numpy(np.ascontiguousarray(crops)).to(self.device).permute(0, 3, 1, 2).float().div(255)
        with torch.inference_mode(), self._arithmetic():
            logits, *others = self._ensemble.expert_logits(images, only)
        arrays = (None if part is None else part.float().cpu().numpy() for part in others)
        return Answers(logits.float().cpu().numpy(), *arrays)

    def sequence_logit(self, features: Floats) -> float:
        """See `Engine.sequence_logit`."""
        with torch.inference_mode(), self._arithmetic():
            return float(self._ensemble.sequence_logit(torch.from_numpy(features).to(self.device)))

    def _arithmetic(self) -> torch.autocast | nullcontext[None]:
        if self.device == "cpu":
            return nullcontext()
        return torch.autocast("cuda", dtype=torch.float16)
