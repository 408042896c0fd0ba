"""Write down every number that the version in use gives for free files, and compare with an earlier record.

    python -m benchmarks.score_record record.json
    python -m benchmarks.score_record later.json --against record.json

Both engines on one thread of this processor, file by file and as the command line does it; features and a training on
fixed items; the modules that server, worker and learning import. Times are left out. The exit code is 1 where anything
differs. Records of different machines differ in last digits.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.score_record.compare import compare
from benchmarks.score_record.files import is_clip, write_files
from benchmarks.score_record.processes import ROOT, server_modules, split_modules

ENGINES = ("torch", "openvino")
LEARNED = ("blended.png", "short.webm")
"""Files whose features are made as for feedback."""
SHOWN = 60


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    parser = argparse.ArgumentParser(prog="benchmarks.score_record", description=__doc__.split("\n")[0])
    parser.add_argument("output", type=Path, help="where the record is written")
    parser.add_argument("--against", type=Path, metavar="FILE", help="an earlier record to compare with")
    parser.add_argument("--leave-out", nargs="+", default=[], metavar="NAME", help="members that are not compared")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES), help="these only")
    given = parser.parse_args(arguments)
    record = make_record(engines=given.engines)
    text = json.dumps(record, indent=1, allow_nan=False) + "\n"
    given.output.write_text(text, encoding="utf-8")
    count = sum(len(of_way) for engine in record["scores"].values() for of_way in engine.values())
    print(f"{count} reports, version {record['version']}: {given.output}")
    if given.against is None:
        return 0
    before = json.loads(given.against.read_text(encoding="utf-8"))
    before["scores"] = {name: of_engine for name, of_engine in before["scores"].items() if name in given.engines}
    found = compare(before, json.loads(text), given.leave_out)
    for difference in found[:SHOWN]:
        print(difference)
    for who, counts in before["own_modules"].items():
        print(f"modules of our own, {who}: {sum(counts.values())} -> {sum(record['own_modules'][who].values())}")
    largest = max((difference.size for difference in found if difference.size is not None), default=0.0)
    print(f"{len(found)} differences, the largest {largest:.3g}" if found else "Every number is the same.")
    return 1 if found else 0


def make_record(
    root: Path | None = None,
    *,
    engines: Sequence[str] = ENGINES,
    names: tuple[str, ...] = (),
    learned: tuple[str, ...] = LEARNED,
) -> dict[str, Any]:
    """The whole record.

    Args:
        root: folder with the versions; None takes that of the configuration.

    Returns:
        Plain JSON values, every float with all its digits.
    """
    from utils.config import load_settings
    from utils.weights import weights_root

    root = root or weights_root(load_settings())
    environ = {
        "TELLTALE_WEIGHTS__DIR": str(root),
        "TELLTALE_DETECTION__DEVICE": "cpu",
        "TELLTALE_DETECTION__THREADS": "1",
    }
    with tempfile.TemporaryDirectory(prefix="telltale-record-") as scratch:
        folder, server = Path(scratch) / "files", Path(scratch) / "server"
        folder.mkdir()
        server.mkdir()
        files = write_files(folder, names)
        record: dict[str, Any] = {"version": "", "scores": {}}
        for engine in engines:
            version, record["scores"][engine] = _scores(files, {**environ, "TELLTALE_DETECTION__ENGINE": engine})
            record["version"] = version
        learning = _learning(root, [folder / name for name in learned])
        modules = {"learning": learning.pop("modules"), **server_modules(environ, files[0], server)}
    record["learning"] = learning
    split = {who: split_modules(held) for who, held in modules.items()}
    record["imports"] = {who: dict.fromkeys(others, True) for who, (others, _) in split.items()}
    record["own_modules"] = {who: counts for who, (_, counts) in split.items()}
    return record


def _scores(files: Sequence[Path], environ: dict[str, str]) -> tuple[str, dict[str, Any]]:
    """Every report file by file, and once more as the command line does it: the next files are decoded meanwhile."""
    from inference import DeepfakeDetector
    from utils.config import load_settings
    from utils.detection.pipeline import analyse

    detector = DeepfakeDetector(config=load_settings(environ=environ))
    alone: dict[str, Any] = {}
    for path in files:
        try:
            alone[path.name] = _plain(analyse(path, detector.analyser))
        except Exception as error:  # noqa: BLE001 - what is raised for a file is part of the record
            alone[path.name] = _failure(error)
    quick = [p for p in files if not is_clip(p)] if detector.analyser.engine.name == "torch" else files
    batched = {
        done.path.name: _failure(done.error) if done.report is None else _plain(done.report)
        for done in detector.batch_predict(quick)
    }
    return detector.analyser.version, {"alone": alone, "batched": batched}


def _plain(report: Any) -> dict[str, Any]:
    """A report with every float as it is, without times; its boxes are not rounded as in its JSON."""
    plain = dataclasses.asdict(report)
    del plain["times_ms"]
    return plain


def _failure(error: Exception | None) -> dict[str, str]:
    return {"error": type(error).__name__, "code": str(getattr(error, "code", ""))}


def _learning(root: Path, files: Sequence[Path]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.score_record.learning", str(root), *map(str, files)]
    done = subprocess.run(  # noqa: S603 (our own command, no shell)
        command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"the training failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


if __name__ == "__main__":
    sys.exit(main())
