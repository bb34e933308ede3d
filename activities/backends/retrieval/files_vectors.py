"""Vectors in a folder as bare numbers: keys in one file, rows of float32, in the same order, in another."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from activities.backends.retrieval.synced import sync
from activities.retrieval_ports import Keys, Vectors

_KEYS = "keys.i64"
_ROWS = "rows.f32"


def read_keys(folder: Path) -> Keys:
    return np.fromfile(folder / _KEYS, "<i8").astype(np.int64, copy=False)


def read_rows(folder: Path, rows: Vectors) -> None:
    """Fills all of `rows`. Raises ValueError: there are more or fewer."""
    _check(folder, *rows.shape)
    target = memoryview(rows.data).cast("B") if rows.size else memoryview(b"")
    with open(folder / _ROWS, "rb", buffering=0) as file:
        while target:
            got = file.readinto(target)
            if not got:
                raise ValueError(f"{folder}: ends too early")
            target = target[got:]


def mapped_rows(folder: Path, many: int, dimensions: int) -> Vectors:
    """Read when they are looked at. Raises ValueError: there are more or fewer."""
    _check(folder, many, dimensions)
    if not many:
        return np.empty((0, dimensions), np.float32)
    return np.asarray(np.memmap(folder / _ROWS, "<f4", "r", shape=(many, dimensions)))


@contextmanager
def write_rows(folder: Path, keys: Keys) -> Iterator[BinaryIO]:
    """Writes the keys, and gives the file that their rows go to."""
    (folder / _KEYS).write_bytes(keys.astype("<i8", copy=False).tobytes())
    with open(folder / _ROWS, "wb") as file:
        yield file


def synced(folder: Path) -> None:
    """All that is in the folder, and its folders, lies on the disk."""
    for path, _, names in os.walk(folder):
        for name in names:
            sync(Path(path) / name)
        sync(Path(path))


def _check(folder: Path, many: int, dimensions: int) -> None:
    if (folder / _ROWS).stat().st_size != many * dimensions * 4:
        raise ValueError(f"{folder}: not {many} vectors of {dimensions} numbers")
