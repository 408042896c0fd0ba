"""The benchmarks run and write their page; how fast is no matter here."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.bench.__main__ import SECTIONS, measure
from benchmarks.bench.page import BEGIN, END, describe, write_page
from benchmarks.bench.reference import ReferencePipeline
from benchmarks.bench.timing import Row, compare, interleave, rows_of
from utils.config import Settings
from utils.detection.pipeline import analyse, load_analyser
from utils.types import Pixels


def test_each_round_runs_every_variant_once_in_turn() -> None:
    order: list[str] = []
    times = interleave({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert {name: len(values) for name, values in times.items()} == {"a": 2, "b": 2}


@pytest.mark.skipif(sys.platform != "linux", reason="Linux counts processor time of other processes")
def test_processor_time_is_that_of_all_processes_below() -> None:
    def work() -> None:
        code = "import time\nwhile time.process_time() < .3: pass"
        subprocess.run([sys.executable, "-c", code], check=True)

    rows = compare("x", {"idle": lambda: None, "work": work}, 1, {})
    idle, working = (row for row in rows if row.section == "x, processor time")
    assert (idle.variant, working.variant) == ("idle", "work")
    assert idle.value <= 30
    assert 290 <= working.value < 1000


def test_ratios_are_against_the_first() -> None:
    first, second = rows_of("x", {"one": [4.0, 2.0, 3.0], "two": [6.0, 9.0, 1.0]}, {"two": "why"})
    assert (first.value, first.low, first.high, first.ratio) == (3.0, 2.0, 4.0, 1.0)
    assert (second.value, second.ratio, second.note) == (6.0, 2.0, "why")


@pytest.mark.slow
def test_every_section_runs(tiny_root: Path) -> None:
    names = [name for name in SECTIONS if name != "server"]
    rows = measure(names, rounds=1, short=True, root=tiny_root)
    assert all(math.isfinite(row.value) and row.value >= 0 for row in rows)
    found = {row.section.split(",")[0] for row in rows}
    assert {"image", "video", "6 photos"} <= found
    for what in ("image", "large photo", "video"):
        sets = [row for row in rows if row.section == f"{what}, by instruction set"]
        asked = ["reference", "AVX512_CORE_AMX", "AVX512_CORE_VNNI", "AVX512_CORE_VNNI without int8"]
        assert [row.variant for row in sets][:4] == asked
        found = [float(row.note.removeprefix("P(fake) ")) for row in sets[1:]]
        assert max(found) - min(found) < 0.01, "all find the same"
    assert any(row.variant == "AVX512_CORE_AMX without the glance" for row in rows)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the server runs on POSIX")
def test_the_server_section_runs(tiny_root: Path) -> None:
    rows = measure(["server"], rounds=1, short=True, root=tiny_root)
    assert {"start", "server, 1 client", "server, 2 clients"} <= {row.section for row in rows}
    if sys.platform == "linux":
        assert {row.variant for row in rows if row.unit == "MiB"} >= {"web process", "worker"}


def test_the_reference_agrees_with_the_product(
    tiny_root: Path, settings_for: Callable[..., Settings], photo: Pixels, tmp_path: Path
) -> None:
    from PIL import Image

    from benchmarks.bench.media import write_clip

    analyser = load_analyser(settings_for(tiny_root))
    reference = ReferencePipeline(analyser)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    write_clip(tmp_path / "clip.mp4", seconds=1.0, width=320, height=240)
    for path in (tmp_path / "photo.png", tmp_path / "clip.mp4"):
        found = [face.verdict.probability for face in analyse(path, analyser).faces]
        assert found
        assert reference.analyse(path) == pytest.approx(found, abs=1e-4)


def test_the_page_gets_the_figures_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    rows = [Row("image", "product", 10.0, "ms", 9.0, 12.0, 0.5), Row("server", "photos per second", 3.0, "per s")]
    write_page(rows, page)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n")  # noqa: PT018
    assert "old" not in text
    assert "| image | product 10 ms (0.50) |" in text
    assert "| server | photos per second 3 per s |" in text


def test_the_machine_has_no_name() -> None:
    import platform

    facts = describe()
    assert {"processor", "cores", "torch", "openvino"} <= set(facts)
    assert platform.node() == "" or platform.node() not in facts.values()
