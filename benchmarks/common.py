"""What drills and studies share: a command line that says what cannot be used, and progress lines."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from utils.errors import TelltaleError
from utils.evaluation.layouts import SPLITS

UNUSABLE = 3
"""Exit code where data or a version cannot be used."""


def data_parser(description: str) -> argparse.ArgumentParser:
    """A command line that names labelled files and a split of them."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, required=True, help="a folder with manifests, or real/ and fake/")
    parser.add_argument("--split", default="val", choices=("all", *SPLITS), help="which of its files")
    return parser


def run_command(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None, work: Callable[[argparse.Namespace], int]
) -> int:
    """Parse and work; `UNUSABLE`, with a sentence, where files or a version cannot be used."""
    chosen = parser.parse_args(arguments)
    try:
        return work(chosen)
    except TelltaleError as error:
        print(error, file=sys.stderr)
        return UNUSABLE


def tell(line: str) -> None:
    """A line of progress."""
    print(line, file=sys.stderr, flush=True)
