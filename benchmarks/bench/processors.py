"""A photo from file to report as on processors with fewer instructions: a process for each, asked in turn.

`python -m benchmarks.bench.processors PHOTO` is such a process: for each line on standard input it analyses the photo
once. `ONEDNN_MAX_CPU_ISA` bounds what its networks are computed with, of what this processor has.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from utils.config import Settings
from utils.detection.pipeline import analyse, load_analyser

WITH_VNNI = "cnn=fp32,resnext=fp32,vit=int8,lstm=fp32"
SETS = {"AVX512_CORE_AMX": "auto", "AVX512_CORE_VNNI": WITH_VNNI, "AVX2_VNNI": WITH_VNNI, "AVX2": "fp32"}
"""Instruction sets, and the precision that a processor without more would be served with."""


@contextlib.contextmanager
def started(photo: Path, settings: Settings, instructions: str) -> Iterator[Callable[[], str]]:
    """A process that has loaded the networks; gives a function that waits for one analysis by it."""
    environ = {
        **os.environ,
        "ONEDNN_MAX_CPU_ISA": instructions,
        "TELLTALE_WEIGHTS__DIR": settings.weights.dir,
        "TELLTALE_DETECTION__ENGINE": "openvino",
        "TELLTALE_DETECTION__PRECISION": SETS[instructions],
        "TELLTALE_DETECTION__THREADS": str(settings.detection.threads),
    }
    command = [sys.executable, "-m", "benchmarks.bench.processors", str(photo)]
    with subprocess.Popen(  # noqa: S603 (our own module, no shell)
        command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:

        def once() -> str:
            if child.stdin is None or child.stdout is None:
                raise RuntimeError("the process has no pipes")
            child.stdin.write("\n")
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
    """Analyse the photo once for each line, and say P(fake) of it."""
    from utils.config import load_settings

    analyser = load_analyser(load_settings(environ=os.environ))
    for _ in sys.stdin:
        print(analyse(Path(sys.argv[1]), analyser).verdict.probability, flush=True)


if __name__ == "__main__":
    main()
