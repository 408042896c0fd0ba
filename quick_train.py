"""Train Telltale in minutes on a subset, to see the way through or to try one's own data.

python quick_train.py --data DATA            five epochs on 150 pictures per source and label
python quick_train.py --data DATA --tiny     seconds, with networks that are too small to be of use
"""

from __future__ import annotations

import sys
from pathlib import Path

from train import build_parser, exit_code, run


def main() -> int:
    """Entry point of the command."""
    parser = build_parser()
    parser.add_argument("--tiny", action="store_true", help="tiny networks, for seconds")
    parser.set_defaults(run=Path("runs/quick"))
    arguments = parser.parse_args()
    if arguments.tiny and arguments.activate:
        parser.error("--tiny makes networks that are of no use, so they are not served; leave --activate out")
    return exit_code(lambda: run(arguments, "tiny" if arguments.tiny else "quick"), arguments.threads)


if __name__ == "__main__":
    sys.exit(main())
