"""How a process's memory is set."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# Fifteen threads that are all there at once, each with memory of its own; prints how many arenas there are.
_ARENAS = """
import ctypes, sys, tempfile, threading
from goatherd import heap
if sys.argv[1] == "few":
    heap.few_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.fopen.restype, libc.fopen.argtypes = ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_char_p]
together = threading.Barrier(15)
def work():
    together.wait()
    libc.malloc(1_000)
    together.wait()
threads = [threading.Thread(target=work) for _ in range(15)]
[one.start() for one in threads]
[one.join() for one in threads]
with tempfile.NamedTemporaryFile() as told:
    file = ctypes.c_void_p(libc.fopen(told.name.encode(), b"w"))
    libc.malloc_info(0, file)
    libc.fclose(file)
    print(told.read().count(b"<heap nr="))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc is meant")
def test_threads_share_memory_that_is_free() -> None:
    def arenas(how: str, **more: str) -> int:
        env = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"} | more
        done = subprocess.run(
            [sys.executable, "-c", _ARENAS, how], env=env, capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    most = max(2, os.cpu_count() or 2)
    assert arenas("few") <= most < arenas("any")
    # Whoever has set it has reasons.
    assert arenas("few", MALLOC_ARENA_MAX=str(most + 3)) > most
