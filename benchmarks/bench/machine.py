"""The machine that figures were measured on, without its name."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

_SHOWN = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "neon", "asimd")
_PACKAGES = ("torch", "openvino", "av", "opencv-python-headless", "pillow", "numpy")


def describe() -> dict[str, str]:
    """Processor, cores, instruction sets, memory and versions."""
    facts = {"processor": platform.machine(), "system": f"{platform.system()} {platform.release().split('-')[0]}"}
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line]
        known = {key.strip(): value.strip() for key, value in lines}
        facts["processor"] = known.get("model name", facts["processor"])
        flags = set(known.get("flags", known.get("Features", "")).split())
        facts["instruction sets"] = " ".join(name for name in _SHOWN if name in flags)
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        facts["memory"] = f"{int(meminfo.read_text().split()[1]) / 1e6:.0f} GB"
    facts["cores"] = str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    facts["Python"] = platform.python_version()
    return facts | {name: version(name) for name in _PACKAGES}
