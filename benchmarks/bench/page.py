"""Results as a table on standard output and in docs/results/performance.md, and the machine that they are of."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from benchmarks.bench.timing import Row
from utils.evaluation.scorecard import markdown_table
from web_app.paths import ROOT

PAGE = ROOT / "docs" / "results" / "performance.md"
BEGIN, END = "<!-- figures: written by make bench ARGS=--write -->", "<!-- end of figures -->"
_SHOWN = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "neon", "asimd")
_PACKAGES = ("torch", "openvino", "av", "opencv-python-headless", "pillow", "numpy")


def describe() -> dict[str, str]:
    """Processor, cores, instruction sets, memory and versions of this machine, without its name."""
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


def write_page(rows: Sequence[Row], page: Path = PAGE) -> None:
    """Put results into the page between its two markers, in place of what was there."""
    machine = "; ".join(f"{name} {value}" for name, value in describe().items())
    cells = ((section, "; ".join(map(_cell, of_section))) for section, of_section in by_section(rows).items())
    table = "\n".join(markdown_table(("what", "medians (ratio to the first)"), cells))
    head, rest = page.read_text().split(BEGIN)
    page.write_text(f"{head}{BEGIN}\n\nMachine: {machine}.\n\n{table}\n\n{END}{rest.split(END)[1]}")


def by_section(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each section."""
    return {
        section: [row for row in rows if row.section == section] for section in dict.fromkeys(r.section for r in rows)
    }


def _cell(row: Row) -> str:
    ratio = "" if row.ratio in (None, 1.0) else f" ({row.ratio:.2f})"
    return f"{row.variant} {row.value:.4g} {row.unit}{ratio} {row.note}".rstrip()


def print_rows(rows: Sequence[Row]) -> None:
    """A table on standard output."""
    for section, of_section in by_section(rows).items():
        print(f"\n{section}")
        for row in of_section:
            spread = "" if row.low is None else f"{row.low:.1f} .. {row.high:.1f}"
            ratio = "" if row.ratio is None else f"{row.ratio:.3f}"
            print(f"  {row.variant:44} {row.value:>10.2f} {row.unit:8} {spread:>20} {ratio:>7}  {row.note}")
