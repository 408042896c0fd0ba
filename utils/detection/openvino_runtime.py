"""OpenVINO's core object, one per process, and what this processor can compute with."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any


@functools.cache
def core() -> Any:
    """OpenVINO's entry point; it holds what compiled graphs share."""
    import openvino

    return openvino.Core()


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bf16 itself; elsewhere it would only be slower."""
    return "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def compile_graph(graph: Any, *, hint: str, threads: int) -> Any:
    """A graph made ready for this processor, as a request that computes one batch at a time.

    Args:
        graph: an OpenVINO model, or the path of one.
        hint: f32 or bf16, what it computes with.
    """
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint}
    if threads:
        options["INFERENCE_NUM_THREADS"] = str(threads)
    if isinstance(graph, Path):  # a file's weights that are kept as int8 are multiplied as floats all the same
        options["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = "0"
    model = core().read_model(graph) if isinstance(graph, Path) else graph
    return core().compile_model(model, "CPU", options).create_infer_request()
