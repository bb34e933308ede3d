"""The garbage collector, set for a server: what is there for good is not looked at again and again."""

from __future__ import annotations

import gc

_YOUNG = 20_000
"""New containers between two collections of the youngest. Python's 700 has it run several times a request."""


def settle() -> None:
    """Called once a process, when all is imported and built.

    A full collection of a heap of ours takes 60 ms, in which a server answers nobody. Modules and the like
    are some hundred thousand objects that never become garbage: frozen, they are left out of it.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG)
