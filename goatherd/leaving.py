"""How a program of ours ends, when all that it has begun is over."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from typing import NoReturn


def leave(code: int = 0) -> NoReturn:
    """Ends the process, without the interpreter's farewell: `atexit` is not asked, threads are not joined.

    Taking torch and Temporal's core apart takes seconds, which a worker that has been told to stop may not
    have. And it may abort: the core's threads hand results over to Python, and let go of them a moment after
    the program has them. One that does so while the interpreter is taken apart ends the process with `Fatal
    Python error: PyGILState_Release`. No call says when they are done.
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # closed at the other end
            stream.flush()
    os._exit(code)
