"""How large the house is: lines and files of each room, circles, what one photo and one feedback can reach, settings,
commands and words, each beside its budget.

    make house

It reads the tree alone and imports nothing of the product. A broken budget ends it with 1. Where a room is too large,
`OVER` says how large it may be until it shrinks, and why; so it grows only on purpose, with a line here.
"""

from __future__ import annotations

import ast
import configparser
import graphlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PRODUCT = ("models", "utils", "web_app", "train.py", "quick_train.py", "inference.py")
ROOMS = {  # most lines, most files that are not empty
    "models": (650, 9),
    "utils": (1900, 11),
    "utils/media": (2450, 15),
    "utils/faces": (530, 4),
    "utils/detection": (3100, 21),
    "utils/speech": (600, 5),
    "utils/evidence": (935, 8),
    "utils/feedback": (2250, 12),
    "utils/training": (3500, 16),
    "utils/evaluation": (1150, 7),
    "scripts": (600, 3),
    "web_app": (7900, 60),
    "product": (24000, 160),
    "benchmarks": (3500, 40),
    "tests": (20000, 175),
}
REACH = {  # modules of ours that are loaded sooner or later by the module that is named
    "one photo": ("utils.detection.pipeline", 46),
    "one feedback": ("web_app.api.feedback", 45),
    "the web process": ("web_app.app", 80),
}
SETTINGS, TARGETS, PAGES, WORDS, README_LINES = 35, 38, 13, 17000, 120
OVER: dict[str, tuple[int, str]] = {
    "models: lines": (1048, "the network of speech; the graphs that serve without torch (280)"),
    "models: files": (11, "the same"),
    "utils: lines": (2645, "speech reports, signatures, what survives a crash; config and types explain much"),
    "utils: files": (13, "types of media, signatures and networks have a file each"),
    "utils/media: lines": (4405, "clean copies (1,100 lines), HEIC, animations, colours, HDR, sound, metadata, parts"),
    "utils/media: files": (19, "the same"),
    "utils/faces: lines": (
        930,
        "faces that cannot be judged, upright, small and covered ones, large photos, cuts between people",
    ),
    "utils/faces: files": (5, "the same"),
    "utils/detection: lines": (
        4095,
        "parts of a clip, cover, paintings, corrections, sound, lips (300); verify, export and close-ups",
    ),
    "utils/training: lines": (4435, "training of speech (1,000 lines), traces of decoders (190), by several processes"),
    "utils/training: files": (19, "the same"),
    "utils/evaluation: lines": (1430, "figures of speech; layouts of data sets as people have them"),
    "scripts: lines": (658, "--speech, a recipe file and its options, recordings on the command line"),
    "web_app: lines": (
        10700,
        "sound, signed reports, cases, near copies, Celery, buckets, a microphone, voices that learn",
    ),
    "product: lines": (
        33785,
        "the sum: about 8,600 are speech, files, feedback, evidence, many machines, serving alone",
    ),
    "product: files": (175, "the same"),
    "benchmarks: lines": (
        7325,
        "drills moved here whole; learning, many machines, speech, score record, probes, the API's description came",
    ),
    "benchmarks: files": (51, "the same"),
    "tests: lines": (34500, "formats, clips, sound, lips, corrections, evidence, cases and many machines came"),
    "tests: files": (200, "the same"),
    "modules behind one photo": (49, "the pipeline reaches sound, more of media and faces, what a file says of itself"),
    "settings": (44, "frames of a clip, close-ups, precision, GPU, memory, broker, bucket, trust list: for operators"),
    "pages of documents": (14, "results of speech and of learning"),
    "words of documents": (22690, "results in full tables, of lips too; many machines, evidence, cases"),
}


def main() -> int:
    """Print every figure beside its budget.

    Returns:
        0, or 1 where a budget is broken.
    """
    files = sorted(path for part in PRODUCT for path in _python(ROOT / part))
    graph = imports_of(files)
    rows = [*_rooms(files), ("circles", len(circles(graph)), 0)]
    for name, (start, most) in REACH.items():
        rows.append((f"modules behind {name}", len(reachable(graph, start)), most))
    rows += _words()
    broken = 0
    for name, found, budget in rows:
        allowed, why = OVER.get(name, (budget, ""))
        broken += found > allowed
        said = "" if found <= budget else f"   allowed {allowed:,}: {why}" if found <= allowed else "   TOO MUCH"
        print(f"{name:30} {found:7,} of {budget:7,}{said}")
    for circle in circles(graph):
        print("circle:", " -> ".join(circle))
    return int(broken > 0)


def _python(place: Path) -> list[Path]:
    return [place] if place.is_file() else [path for path in place.rglob("*.py") if path.read_bytes().strip()]


def _rooms(files: list[Path]) -> Iterator[tuple[str, int, int]]:
    beside = {name: _python(ROOT / name) for name in ("benchmarks", "tests")}
    for room, (most_lines, most_files) in ROOMS.items():
        held = beside.get(room, files if room == "product" else [path for path in files if room_of(path) == room])
        yield f"{room}: lines", sum(path.read_text().count("\n") for path in held), most_lines
        yield f"{room}: files", len(held), most_files


def room_of(path: Path) -> str:
    """The room that a file of the product belongs to."""
    parts = path.relative_to(ROOT).parts
    if len(parts) == 1:
        return "scripts"
    return "/".join(parts[:2]) if parts[0] == "utils" and len(parts) > 2 else parts[0]


def imports_of(files: list[Path]) -> dict[str, set[str]]:
    """Which modules of ours each module imports, inside functions too; what only type checkers read does not count."""
    names = {_dotted(path): path for path in files}
    graph: dict[str, set[str]] = {}
    for name, path in names.items():
        found: set[str] = set()
        for node in _running(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= (inner & names.keys()) | ({node.module} if inner - names.keys() else set())
        graph[name] = (found & names.keys()) - {name}
    return graph


def _dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _running(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from _running(child)


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Modules that import each other in a ring; of rings that share an arrow only one is told."""
    rest = {name: set(targets) for name, targets in graph.items()}
    found: list[list[str]] = []
    while True:
        try:
            graphlib.TopologicalSorter(rest).prepare()
        except graphlib.CycleError as error:
            ring = list(reversed(error.args[1]))
            found.append(ring)
            rest[ring[0]].discard(ring[1])
        else:
            return found


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    """All modules that `start` imports, directly or through others, and itself."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += graph[name]
    return seen


def _words() -> Iterator[tuple[str, int, int]]:
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "config.ini")
    yield "settings", sum(len(config[section]) for section in config.sections()), SETTINGS
    targets = re.findall(r"^[a-z-]+:.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    yield "make targets", len(targets), TARGETS
    pages = sorted((ROOT / "docs").rglob("*.md"))
    yield "pages of documents", len(pages), PAGES
    words = [len(path.read_text().split()) for path in [*pages, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]]
    yield "words of documents", sum(words), WORDS
    yield "README: lines", (ROOT / "README.md").read_text().count("\n"), README_LINES


if __name__ == "__main__":
    sys.exit(main())
