"""What this machine has for models: the device that they go to, and its memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_SHARE = 0.6
"""Of the memory: the rest is for what models compute with, and for everybody else."""
_NVIDIA = Path("/dev/nvidiactl")
_CGROUP = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


@dataclass(frozen=True, slots=True)
class Machine:
    device: str
    memory_bytes: int

    @property
    def for_models(self) -> int:
        """Bytes that models may take if nobody says otherwise."""
        return int(self.memory_bytes * _SHARE)


def survey() -> Machine:
    """The first GPU, if torch can use it, else the CPU. Blocks; torch is imported only where there is one."""
    if _NVIDIA.exists():
        try:
            import torch
        except ImportError:
            return Machine("cpu", main_memory())
        if torch.cuda.is_available():
            return Machine("cuda", int(torch.cuda.get_device_properties(0).total_memory))
    return Machine("cpu", main_memory())


def main_memory() -> int:
    """The machine's, or as much of it as this container may take."""
    import psutil

    total = int(psutil.virtual_memory().total)
    for place in _CGROUP:
        try:
            total = min(total, int(place.read_text()))
        except (OSError, ValueError):  # there is none, or it says `max`
            continue
    return total
