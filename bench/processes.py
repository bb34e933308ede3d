"""What the processes of a whole Goatherd have spent, by what each of them is.

CPU seconds: other work on the machine changes them much less than wall time.
"""

from __future__ import annotations

import psutil


def spent(pid: int) -> dict[str, float]:
    """CPU seconds of each child of `goatherd up`, and of this process: the client."""
    seconds = {"client": _seconds(psutil.Process())}
    for process in psutil.Process(pid).children(recursive=True):
        role = role_of(process.cmdline())
        seconds[role] = seconds.get(role, 0.0) + _seconds(process)
    return seconds


def told(before: dict[str, float], after: dict[str, float], count: int) -> str:
    """Milliseconds of CPU for each of `count` operations."""
    each = {role: (after[role] - seconds) / count * 1e3 for role, seconds in before.items()}
    shown = ", ".join(f"{role} {ms:.2f}" for role, ms in each.items() if ms >= 0.005)
    return f"CPU ms each: {shown}; all {sum(each.values()):.2f}"


def role_of(command: list[str]) -> str:
    words = " ".join(command)
    for word, role in (("secantus", "store"), ("server start-dev", "Temporal")):
        if word in words:
            return role
    return next((role for role in ("api", "actors", "inference") if role in command[3:]), "other")


def find(pid: int, role: str) -> psutil.Process:
    """The process itself, not what watches it."""
    children = psutil.Process(pid).children(recursive=True)
    return next(
        one for one in children if role_of(one.cmdline()) == role and "_exec" not in str(one.cmdline())
    )


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
