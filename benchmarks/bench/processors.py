"""A file from its bytes to its report as on processors with fewer instructions: a process for each, asked in turn.

`python -m benchmarks.bench.processors` is such a process: it analyses the file of each line on standard input once,
behind `WITHOUT_GLANCE` without that. `ONEDNN_MAX_CPU_ISA` bounds what its networks are computed with, of what this
processor has.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

from utils.config import Settings
from utils.detection.pipeline import analyse, load_analyser

WITHOUT_GLANCE = "without the glance: "
WITH_VNNI = "cnn=fp32,resnext=fp32,vit=int8,lstm=fp32"
SETS = {"AVX512_CORE_AMX": "auto", "AVX512_CORE_VNNI": WITH_VNNI, "AVX2_VNNI": WITH_VNNI, "AVX2": "fp32"}
"""Instruction sets, and the precision that a processor without more would be served with."""


@contextlib.contextmanager
def started(settings: Settings, instructions: str, precision: str) -> Iterator[Callable[[str], str]]:
    """A process that has loaded the networks; gives a function that takes a line and waits for its analysis."""
    environ = {
        **os.environ,
        "ONEDNN_MAX_CPU_ISA": instructions,
        "TELLTALE_WEIGHTS__DIR": settings.weights.dir,
        "TELLTALE_DETECTION__ENGINE": "openvino",
        "TELLTALE_DETECTION__PRECISION": precision,
        "TELLTALE_DETECTION__THREADS": str(settings.detection.threads),
    }
    command = [sys.executable, "-m", "benchmarks.bench.processors"]
    with subprocess.Popen(  # noqa: S603 (our own module, no shell)
        command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:

        def once(line: str) -> str:
            if child.stdin is None or child.stdout is None:
                raise RuntimeError("the process has no pipes")
            child.stdin.write(f"{line}\n")
            child.stdin.flush()
            said = child.stdout.readline()
            if not said:
                raise RuntimeError(f"the process with {instructions} ended with code {child.wait()}")
            return said.strip()

        try:
            yield once
        finally:
            if child.stdin is not None:
                child.stdin.close()


def main() -> None:
    """Analyse the file of each line, and say P(fake) of it."""
    from utils.config import load_settings

    analyser = load_analyser(load_settings(environ=os.environ))
    for line in sys.stdin:
        path = Path(line.rstrip("\n").removeprefix(WITHOUT_GLANCE))
        seldom = patch.object(type(analyser.detector), "glance", lambda *_: None)
        with seldom if line.startswith(WITHOUT_GLANCE) else contextlib.nullcontext():
            print(analyse(path, analyser).verdict.probability, flush=True)


if __name__ == "__main__":
    main()
