"""OpenVINO's core object, one per process, and what this processor can compute with."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

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
    listing = Path("/proc/cpuinfo")
    flags = listing.read_text("utf-8").split() if listing.exists() else []
    return "avx512_vnni" in flags or "avx_vnni" in flags


def compile_graph(graph: Any, *, hint: str, threads: int) -> Any:
    """A graph made ready for this processor, as a request that computes one batch at a time.

    Args:
        graph: an OpenVINO model, or the path of one.
        hint: f32 or bf16, what it computes with.
    """
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint}
    if threads:
        options["INFERENCE_NUM_THREADS"] = str(threads)
    # what int8 weights multiply is rounded too, except a file's: those are multiplied as floats all the same
    options["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = "0" if isinstance(graph, Path) else INT8_GROUP
    model = core().read_model(graph) if isinstance(graph, Path) else graph
    return core().compile_model(model, "CPU", options).create_infer_request()
