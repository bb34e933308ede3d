"""Becomes another program that does not outlive the process that started this one (Linux).

Run as a script, with the standard library only: `python -I -S _exec.py PARENT_PID PROGRAM ARGUMENT…`. It
stands between fork and exec because Python code in a forked child (`preexec_fn`) is unsafe beside threads.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, program = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        # KILL, not TERM: who lost its parent may be stuck, and all that runs here survives a crash anyway.
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
        if os.getppid() != parent:  # it died before the call above
            sys.exit(1)
    os.execv(program[0], program)


if __name__ == "__main__":
    main()
