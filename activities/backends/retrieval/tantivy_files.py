"""Folders of tantivy's, copied while it works in them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from activities.backends.retrieval.synced import sync

META = "meta.json"
"""Names the segments of the last commit. Everything else but this is written once and never changed."""
_MANAGED = ".managed.json"

_ATTEMPTS = 100


def copy_index(live: Path, folder: Path) -> None:
    """Writes the last commit into an empty folder, synced.

    Segments may be merged meanwhile, in threads of tantivy's: a copy during which that happened is made
    again. Where the file system can, the copy's files are links to the index's own.

    Raises:
        OSError: it can't be read or written.
    """
    for _ in range(_ATTEMPTS):
        meta = (live / META).read_bytes()
        names = _files(live, meta)
        try:
            for name in names:
                link(live / name, folder / name)
            whole = (live / META).read_bytes() == meta
        except FileNotFoundError:
            whole = False
        if whole:
            (folder / META).write_bytes(meta)
            (folder / _MANAGED).write_text(json.dumps([META, *names]))
            for name in (META, _MANAGED):
                sync(folder / name)
            sync(folder)
            return
        for name in names:
            (folder / name).unlink(missing_ok=True)
    raise OSError(f"{live} is never still")


def restore_index(folder: Path, live: Path) -> None:
    """Makes an empty folder one to work in, of what `copy_index` wrote, which stays as it is."""
    for name in _files(folder, (folder / META).read_bytes()):
        link(folder / name, live / name)
    for name in (META, _MANAGED):
        shutil.copyfile(folder / name, live / name)


def _files(folder: Path, meta: bytes) -> list[str]:
    """The files of the segments that a `meta.json` names: each begins with its segment's id."""
    segments = {segment["segment_id"].replace("-", "") for segment in json.loads(meta)["segments"]}
    return sorted(name for name in os.listdir(folder) if name.partition(".")[0] in segments)


def link(source: Path, copy: Path) -> None:
    """The same file at another place: a link, or where there can't be one, a synced copy."""
    try:
        os.link(source, copy)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, copy)
        sync(copy)
