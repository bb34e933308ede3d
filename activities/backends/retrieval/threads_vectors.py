"""How many threads engines compute in: they share the machine with models, stores and other workers.

OpenMP's threads wait for each other busily: with as many as there are cores, and one of these taken, a search
takes twenty times as long as in one thread.
"""

from __future__ import annotations

import os


def threads() -> int:
    """As OMP_NUM_THREADS says; by default half of the cores."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    if said.isdigit() and int(said):
        return int(said)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // 2)
