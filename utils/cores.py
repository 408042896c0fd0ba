"""How many processor cores this process may use, which on shared machines and in containers are not all there are."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def usable_cores(cgroup: Path = _CGROUP) -> int:
    """The cores that this process may run on, at most what the quota of its container pays for; 1 and more.

    Args:
        cgroup: where the control groups are mounted (Linux, Documentation/admin-guide/cgroup-v2.rst, `cpu.max`; for
            version 1 `cpu.cfs_quota_us`).
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(cgroup)
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


def _quota(cgroup: Path) -> float | None:
    """Cores worth of time that the container's quota grants; None where there is no quota."""
    try:
        if (cgroup / "cpu.max").exists():
            given, period = (cgroup / "cpu.max").read_text().split()
        else:
            given = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text()
        return float(given) / float(period) if float(given) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # `max`: no limit; or no control groups at all
        return None
