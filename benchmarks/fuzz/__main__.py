"""`python -m benchmarks.fuzz`: every reader for 60 seconds, with atheris where it is installed.

atheris (Apache-2.0) watches which code an input reaches and goes on from those that reach more. It is no requirement:
without it, or with `--plain`, the repeatable mutations of `engine.py` run for the same time.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def with_atheris(name: str, seconds: int) -> int:
    """Fuzz one reader in this process, guided by coverage; atheris ends the process itself."""
    import atheris

    with atheris.instrument_imports(include=["utils", "web_app", "benchmarks.fuzz.targets"]):
        from benchmarks.fuzz.targets import TARGETS
    target = TARGETS[name]
    with tempfile.TemporaryDirectory(prefix="telltale-corpus-") as corpus:
        for number, data in enumerate(target.seeds()):
            (Path(corpus) / f"seed-{number}").write_bytes(data)
        options = {
            "max_total_time": seconds, "max_len": 8192, "rss_limit_mb": 4096, "timeout": 20, "verbosity": 0,
            "print_final_stats": 1, "detect_leaks": 0, "artifact_prefix": f"{corpus}/",
        }  # fmt: skip
        flags = [f"-{key}={value}" for key, value in options.items()]
        atheris.Setup([sys.argv[0], *flags, corpus], target.run)
        atheris.Fuzz()
    return 0


def plainly(name: str, seconds: int, seed: int) -> int:
    """Fuzz one reader with mutations of our own."""
    from benchmarks.fuzz.engine import fuzz
    from benchmarks.fuzz.targets import TARGETS

    done = fuzz(TARGETS[name], seconds=seconds, seed=seed)
    print(f"ok   {name}: {done} inputs in {seconds} s, none uncaught")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="of the readers; all by default")
    parser.add_argument("--seconds", type=int, default=60, help="for each reader; 1800 for the long form")
    parser.add_argument("--plain", action="store_true", help="without atheris")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the plain mutations")
    parser.add_argument("--here", choices=("atheris", "plain"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:
        (name,) = given.names
        return (
            with_atheris(name, given.seconds) if given.here == "atheris" else plainly(name, given.seconds, given.seed)
        )

    from benchmarks.fuzz.targets import TARGETS

    guided = not given.plain and importlib.util.find_spec("atheris") is not None
    print(f"fuzzing with {'atheris' if guided else 'mutations of our own'}, {given.seconds} s each")
    failed = []
    for name in given.names or TARGETS:
        command = [sys.executable, "-m", "benchmarks.fuzz", name, "--seconds", str(given.seconds),
                   "--seed", str(given.seed), "--here", "atheris" if guided else "plain"]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ)  # noqa: S603 - our own
        text = done.stdout + done.stderr
        runs = [line.split()[-1] for line in text.splitlines() if "number_of_executed_units" in line]
        told = f"{runs[0]} inputs in {given.seconds} s" if runs else text.strip().splitlines()[-1] if text else ""
        print(f"{'ok  ' if done.returncode == 0 else 'MISS'} {name}: {told}")
        if done.returncode != 0:
            failed.append(name)
            print(text[-4000:])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
