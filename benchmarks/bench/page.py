"""Results and the machine that they were measured on, as JSON and as tables and a plot in docs/results."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.bench.timing import Row
from utils.evaluation.scorecard import markdown_table
from web_app.paths import ROOT

PAGE = ROOT / "docs" / "results" / "performance.md"
BEGIN, END = "<!-- figures: written by make bench ARGS=--write -->", "<!-- end of figures -->"
PLOTTED = ("image, end to end", "video, end to end")
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


def document(rows: Sequence[Row], machine: Mapping[str, str]) -> dict[str, Any]:
    """Rows and machine as plain JSON."""
    return {"machine": dict(machine), "rows": [dataclasses.asdict(row) for row in rows]}


def write_page(rows: Sequence[Row], machine: Mapping[str, str], page: Path = PAGE) -> None:
    """Put results into the page between its two markers, over those of the same sections; other sections stay.

    The JSON and the plot lie beside the page.
    """
    data = page.with_suffix(".json")
    if data.exists():
        before = json.loads(data.read_text())
        measured = {row.section for row in rows}
        if before["machine"] == dict(machine):  # figures of two machines are not mixed
            rows = [*(Row(**row) for row in before["rows"] if row["section"] not in measured), *rows]
    data.write_text(json.dumps(document(rows, machine), indent=1) + "\n")
    head, rest = page.read_text().split(BEGIN)
    tail = rest.split(END)[1]
    page.write_text(f"{head}{BEGIN}\n\n{_tables(rows, machine)}\n{END}{tail}")
    (page.parent / "images").mkdir(exist_ok=True)
    _plot(rows, page.parent / "images" / "performance.svg")


def _tables(rows: Sequence[Row], machine: Mapping[str, str]) -> str:
    lines = ["![Image and video from file to report](images/performance.svg)", ""] if _plotted(rows) else []
    lines += ["Machine: " + "; ".join(f"{name} {value}" for name, value in machine.items()) + ".", ""]
    shown: dict[str, list[str]] = {}
    for row in sorted(rows, key=lambda row: row.section):
        ratio = "" if row.ratio in (None, 1.0) else f" ({row.ratio:.2f})"
        note = f" {row.note}" if row.note else ""
        shown.setdefault(row.section, []).append(f"{row.variant} {row.value:.4g} {row.unit}{ratio}{note}")
    cells = ((section, "; ".join(of_section)) for section, of_section in shown.items())
    return "\n".join([*lines, *markdown_table(("what", "medians (ratio to the first)"), cells), ""])


def _plotted(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.section in PLOTTED and row.unit == "ms"]


def _plot(rows: Sequence[Row], target: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    chosen = _plotted(rows)
    if not chosen:
        return
    figure, axes = pyplot.subplots(figsize=(7, 0.45 * len(chosen) + 0.8))
    names = [f"{row.section.split(',')[0]}: {row.variant}" for row in chosen]
    axes.barh(names, [row.value for row in chosen], color="#4a6fa5")
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds (median)")
    for place, row in enumerate(chosen):
        axes.text(row.value, place, f" {row.value:.0f}", va="center")
    figure.tight_layout()
    with mpl.rc_context({"svg.hashsalt": "telltale"}):
        figure.savefig(target, metadata={"Date": None})
    pyplot.close(figure)
