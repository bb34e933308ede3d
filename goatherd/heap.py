"""Memory, set for a server: what is there for good is not looked at again and again, and what is freed is
not kept by each thread for itself."""

from __future__ import annotations

import ctypes
import gc
import os

_YOUNG = 20_000
"""New containers between two collections of the youngest. Python's 700 has it run several times a request."""
_M_ARENA_MAX = -8
"""Of glibc's mallopt."""


def few_arenas() -> None:
    """Called once a process, before it has threads: no more of malloc's arenas than cores, at least two.

    glibc makes up to eight for each core, each of which keeps what its threads have freed: a worker that took
    in 100,000 documents had 40 MB in them. Only glibc can be told; who sets MALLOC_ARENA_MAX knows better.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and "MALLOC_ARENA_MAX" not in os.environ:
        mallopt(_M_ARENA_MAX, max(2, os.cpu_count() or 2))


def settle() -> None:
    """Called once a process, when all is imported and built.

    A full collection of a heap of ours takes 60 ms, in which a server answers nobody. Modules and the like
    are some hundred thousand objects that never become garbage: frozen, they are left out of it.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG)
