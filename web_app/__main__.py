"""`python -m web_app serve|worker|keys|rebuild`: see `web_app/cli.py`."""

from __future__ import annotations

import os
import sys

from web_app.cli import main
from web_app.paths import PRIVATE

if __name__ == "__main__":
    os.umask(PRIVATE)
    sys.exit(main())
