"""Choose the engine for a version: torch on a GPU, OpenVINO on a processor."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.config import Settings
from utils.detection.engine import Engine, read_gate
from utils.detection.processor import cpu_has_avx512, read_precision
from utils.errors import ConfigError, WeightsCorruptError, require_torch
from utils.log import get_logger
from utils.networks import load_ensemble, read_expert
from utils.weights import Version, choose_experts

if TYPE_CHECKING:
    from models.ensemble_model import Ensemble

log = get_logger(__name__)


def load_engine(
    settings: Settings,
    root: Path,
    version: Version,
    *,
    device: str,
    threads: int,
    experts: tuple[str, ...] | None = None,
) -> tuple[Engine, dict[str, str]]:
    """The engine that the settings choose, with a version's networks.

    Returns:
        The engine, and for each expert that is not in it a sentence why.

    Raises:
        WeightsError: no wanted expert is there, or weights do not fit.
        ConfigError: the device is not there, or does not go with the engine.
    """
    read_precision(settings.detection.precision)
    if choose_backend(settings.detection.engine, device, tiny=version.tiny) == "openvino":
        try:
            return _load_openvino(settings, root, version, threads=threads, experts=experts)
        except (ImportError, RuntimeError) as error:  # OpenVINO's own
            if settings.detection.engine == "openvino":
                raise ConfigError(f"[detection] engine cannot be used: {error}.") from error
            log.warning("The openvino engine cannot be used, so torch computes: %s.", error)
    require_torch("The torch engine")
    from utils.detection.torch_engine import TorchEngine  # seconds and hundreds of MB: only where it is needed

    ensemble, missing = load_ensemble(root, version, experts)
    compiled = settings.detection.gpu_compile == "on"
    return TorchEngine(ensemble, read_gate(version), device=device, threads=threads, compiled=compiled), missing


def choose_backend(engine: str, device: str, *, tiny: bool) -> str:
    """torch or openvino.

    `auto` takes torch for tiny test networks too.

    Raises:
        ConfigError: openvino is asked for together with a GPU.
    """
    if engine == "openvino" and device == "cuda":
        raise ConfigError("[detection] engine openvino runs on a processor; for device cuda take torch or auto.")
    if engine != "auto":
        return engine
    return "torch" if tiny or device == "cuda" or (device == "auto" and has_gpu()) else "openvino"


def has_gpu() -> bool:
    """Whether torch finds a GPU; torch is loaded only where a driver for one is installed."""
    names = ("nvcuda.dll",) if sys.platform == "win32" else ("libcuda.so.1", "libamdhip64.so")
    if not any(map(_loads, names)):
        return False
    try:
        import torch
    except ImportError:  # an installation that only serves, which torch would let use the GPU
        return False
    return bool(torch.cuda.is_available())


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _load_openvino(
    settings: Settings, root: Path, version: Version, *, threads: int, experts: tuple[str, ...] | None
) -> tuple[Engine, dict[str, str]]:
    from utils.detection.openvino_engine import OpenVinoEngine
    from utils.detection.processor import cpu_has_bf16, cpu_has_vnni

    chosen, missing = choose_experts(version, experts)
    precisions = read_precision(settings.detection.precision, bf16=cpu_has_bf16(), vnni=cpu_has_vnni())

    def load_networks() -> Ensemble:
        import torch

        torch.set_num_threads(threads or torch.get_num_threads())
        return load_ensemble(root, version, experts)[0]

    engine = OpenVinoEngine(
        lambda name: expert_graph(root, version, name, precisions[name]),
        {name: precisions[name] for name in chosen},
        read_gate(version),
        load_networks=load_networks,
        tiny=version.tiny,
        threads=threads,
    )
    return engine, missing


def expert_graph(root: Path, version: Version, name: str, precision: str) -> Any:
    """An expert of a verified version as an OpenVINO graph.

    Raises:
        WeightsError: its arrays cannot be read or do not fit the network.
    """
    from models.graphs import build_graph

    arrays = read_expert(root, version, name)
    try:
        return build_graph(name, arrays, tiny=version.tiny, precision=precision, keep_int8=cpu_has_avx512())
    except (ValueError, RuntimeError) as error:
        raise WeightsCorruptError(f"The weights of {name} do not fit its network: {error}.") from error
