"""What this processor computes with: how many of its cores, OpenVINO's core object, one per process, and the precision
of each expert of the openvino engine.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.cards import EXPERT_NAMES
from utils.errors import ConfigError

PRECISIONS = ("int8", "bf16", "fp32")
"""From the smallest numbers to the largest."""
KEEP_PARITY = {"cnn": ("fp32",), "resnext": ("bf16", "fp32"), "vit": ("int8", "bf16", "fp32"), "lstm": ("bf16", "fp32")}
"""In which precisions an expert stays with torch in fp32: a test measures it on known faces."""


def read_precision(text: str, *, bf16: bool = False, vnni: bool = False) -> dict[str, str]:
    """What each expert computes with on a processor, from the setting [detection] precision.

    The setting names the smallest numbers allowed; an expert gets the smallest from there on that keep parity and
    that the processor has. `auto` is bf16 where the processor has it, else int8; experts that are not named get that.

    Args:
        bf16, vnni: whether the processor multiplies bf16 and int8 itself.

    Raises:
        ConfigError: it names another precision or expert.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    has = {"fp32": True, "bf16": bf16, "int8": vnni}
    fastest = "bf16" if bf16 else "int8"
    if len(parts) == 1 and "=" not in parts[0]:
        smallest = dict.fromkeys(EXPERT_NAMES, fastest if parts[0] == "auto" else parts[0])
    else:
        named = dict(part.partition("=")[::2] for part in parts)
        if not named or set(named) - set(EXPERT_NAMES):
            named = {text: ""}
        smallest = {**dict.fromkeys(EXPERT_NAMES, fastest), **named}
    if any(value not in PRECISIONS for value in smallest.values()):
        raise ConfigError(
            f"[detection] precision must be auto, int8, bf16, fp32, or one per expert such as "
            f"cnn=fp32,vit=bf16, not {text!r}."
        )
    return {
        name: next(p for p in PRECISIONS[PRECISIONS.index(smallest[name]) :] if p in KEEP_PARITY[name] and has[p])
        for name in EXPERT_NAMES
    }


def format_precisions(precisions: Mapping[str, str]) -> str:
    """As the setting is written: `cnn=fp32,vit=bf16`."""
    return ",".join(f"{name}={precisions[name]}" for name in EXPERT_NAMES if name in precisions)


INT8_GROUP = "32"
"""So many neighbours share a scale where int8 multiplies; with 64 twice as much is rounded off, for .03 of the time."""


@functools.cache
def core() -> Any:
    """OpenVINO's entry point; it holds what compiled graphs share."""
    import openvino

    return openvino.Core()


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bf16 itself; elsewhere it would only be slower."""
    return "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def cpu_has_vnni() -> bool:
    """Whether the processor multiplies int8 itself (AVX-512 VNNI, AVX-VNNI); known on Linux alone."""
    return not {"avx512_vnni", "avx_vnni"}.isdisjoint(_flags())


def cpu_has_avx512() -> bool:
    """Whether the processor has the AVX-512 of servers, and oneDNN's variable leaves it; known on Linux alone."""
    return "avx512bw" in _flags() and not os.environ.get("ONEDNN_MAX_CPU_ISA", "").startswith("AVX2")


def _flags() -> list[str]:
    listing = Path("/proc/cpuinfo")
    return listing.read_text("utf-8").split() if listing.exists() else []


def compile_graph(graph: Any, *, precision: str, threads: int) -> Any:
    """A graph made ready for this processor, as a request that computes one batch at a time.

    Args:
        graph: an OpenVINO model, or the path of one.
        precision: fp32, bf16, or int8, where what int8 weights multiply is rounded, too; all else is fp32 there.
    """
    hint = "bf16" if precision == "bf16" else "f32"
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint}
    if threads:
        options["INFERENCE_NUM_THREADS"] = str(threads)
    options["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = INT8_GROUP if precision == "int8" else "0"
    model = core().read_model(graph) if isinstance(graph, Path) else graph
    return core().compile_model(model, "CPU", options).create_infer_request()


_CGROUP = Path("/sys/fs/cgroup")


def usable_cores(cgroup: Path = _CGROUP) -> int:
    """The cores that this process may run on, at most what the quota of its container pays for; 1 and more.

    Args:
        cgroup: where the control groups are mounted (Linux, Documentation/admin-guide/cgroup-v2.rst, `cpu.max`; for
            version 1 `cpu.cfs_quota_us`).
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(cgroup)
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


def _quota(cgroup: Path) -> float | None:
    """Cores worth of time that the container's quota grants; None where there is no quota."""
    try:
        if (cgroup / "cpu.max").exists():
            given, period = (cgroup / "cpu.max").read_text().split()
        else:
            given = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text()
        return float(given) / float(period) if float(given) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # `max`: no limit; or no control groups at all
        return None
