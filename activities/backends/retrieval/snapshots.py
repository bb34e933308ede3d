"""What engines keep of versions in a folder, so that the next worker begins there: one snapshot a version,
whole or not at all.

    <root>/<index>@<version>/
        000000000007-6b1f…/      a snapshot: the one with the greatest number counts
            manifest.json        what is in it, with sizes and checksums
            table/ vectors/ …    the parts
        .writing-…/  .live-…/    of processes that are at work; what dead ones left is swept away
        .lock

Several processes may work in one folder: whoever saves later wins. A snapshot is written beside the others,
synced, and renamed; then the earlier ones are removed. Whoever has files of these open goes on with them.
What is torn, or of something else, is not opened, and left alone until the next one is saved.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from activities.backends.retrieval.synced import sync
from goatherd.contracts.retrieval import IndexSpec

FORMAT = 1
_MANIFEST = "manifest.json"
_NAME = re.compile(r"(\d{12})-[0-9a-f]{16}")
_FOLDER = re.compile(r"(?P<index>[^/\x00]+)@(?P<version>\d+)")
_LOCK = ".lock"
_WRITING = ".writing-"
_LIVE = ".live-"
_HELD = "held"
"""The file in a folder at work that its process holds locked, as long as it lives."""
_PIECE = 1 << 22

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Snapshot:
    folder: Path
    applied: int


class Snapshots:
    """Of one version of an index. Methods block."""

    def __init__(self, root: Path, index: str, version: int, spec: IndexSpec) -> None:
        if not index or "/" in index or "\0" in index:
            raise ValueError(f"{index!r} can't be part of a folder's name")
        self.folder = root / f"{index}@{version}"
        # Defaults are left out: an option that comes later does not make all snapshots foreign.
        wanted = spec.model_dump(mode="json", exclude_defaults=True)
        self._is = {"format": FORMAT, "index": index, "version": version, "spec": _digest(wanted)}

    @property
    def any(self) -> bool:
        """Whether there is one at all."""
        return bool(self._names())

    def whole(self) -> Iterator[Snapshot]:
        """Those that can be opened, the newest first. If that one is removed by whoever saves a newer one
        before it is opened, the newer one is next."""
        tried: set[str] = set()
        while untried := [name for name in self._names() if name not in tried]:
            tried.add(untried[-1])
            snapshot = self._read(self.folder / untried[-1])
            if snapshot is not None:
                yield snapshot

    def latest(self) -> Snapshot | None:
        return next(self.whole(), None)

    def writing(self) -> Writing:
        """A folder to write a new one into."""
        return Writing(self, self._at_work(_WRITING))

    def live(self) -> LiveFolder:
        """A folder to work in."""
        return self._at_work(_LIVE)

    def _names(self) -> list[str]:
        try:
            return sorted(name for name in os.listdir(self.folder) if _NAME.fullmatch(name))
        except FileNotFoundError:
            return []

    def _read(self, folder: Path) -> Snapshot | None:
        try:
            manifest = json.loads((folder / _MANIFEST).read_bytes())
            said = manifest.pop("digest")
            if said != _digest(manifest):
                raise ValueError("its manifest is torn")
            if {name: manifest[name] for name in self._is} != self._is:
                raise ValueError("it is of another index, or of another version of this program")
            if manifest["files"] != _files(folder):
                raise ValueError("its files are not those that were written")
            return Snapshot(folder, int(manifest["applied"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            if folder.exists():
                _log.warning("the snapshot %s is not used: %s", folder, error)
            return None

    def _at_work(self, kind: str) -> LiveFolder:
        with _locked(self.folder):
            _sweep(self.folder)
            return LiveFolder(self.folder / f"{kind}{secrets.token_hex(8)}")

    def publish(self, written: Path, applied: int) -> Snapshot:
        """Lets the folder that was written be the newest one, and removes all others."""
        content = self._is | {"applied": applied, "files": _files(written)}
        with open(written / _MANIFEST, "x", encoding="utf-8") as file:
            json.dump(content | {"digest": _digest(content)}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        sync(written)
        with _locked(self.folder):
            names = self._names()
            number = 1 + (int(names[-1].partition("-")[0]) if names else 0)
            folder = self.folder / f"{number:012d}-{secrets.token_hex(8)}"
            os.rename(written, folder)
            sync(self.folder)
            for name in names:
                shutil.rmtree(self.folder / name, ignore_errors=True)
        return Snapshot(folder, applied)


class LiveFolder:
    """A folder that is its process's alone, and is swept away by others when that has ended."""

    def __init__(self, folder: Path) -> None:
        """To be made while the folder around it is locked."""
        folder.mkdir()
        self.folder = folder
        self._held = open(folder / _HELD, "w")  # noqa: SIM115 - until it is removed
        fcntl.flock(self._held, fcntl.LOCK_EX)

    def sub(self, name: str) -> Path:
        """A new folder in it."""
        folder = self.folder / name
        folder.mkdir()
        return folder

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self._held.close()


class Writing:
    """A snapshot on its way. Left without `commit`, it never was."""

    def __init__(self, snapshots: Snapshots, place: LiveFolder) -> None:
        self._snapshots = snapshots
        self._place = place
        self.folder = place.sub("snapshot")

    def __enter__(self) -> Writing:
        return self

    def __exit__(self, *_: object) -> None:
        self._place.remove()

    def commit(self, applied: int) -> Snapshot:
        """It has all entries up to this number: from now on it counts."""
        return self._snapshots.publish(self.folder, applied)


def kept(root: Path) -> list[tuple[str, int]]:
    """Of which versions of which indexes there is something, by index and number."""
    try:
        names = os.listdir(root)
    except FileNotFoundError:
        return []
    found = [_FOLDER.fullmatch(name) for name in names]
    return sorted((one["index"], int(one["version"])) for one in found if one)


def forget(root: Path, index: str, version: int) -> None:
    """Removes what is kept of a version that is no more. Whoever has it open goes on with it."""
    folder = root / f"{index}@{version}"
    if not folder.is_dir():
        return
    with _locked(folder):
        for name in os.listdir(folder):
            if _NAME.fullmatch(name):
                shutil.rmtree(folder / name, ignore_errors=True)
        _sweep(folder)
        if os.listdir(folder) == [_LOCK]:
            (folder / _LOCK).unlink()
            folder.rmdir()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Alone among all threads and processes in this folder, which is made. Kept short."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            file = open(folder / _LOCK, "w")  # noqa: SIM115 - closed below
        except FileNotFoundError:
            continue  # `forget` was quicker
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if _is_named(file, folder / _LOCK):
                yield
                return


def _is_named(file: IO[str], path: Path) -> bool:
    """Not when `forget` has removed it meanwhile."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _sweep(folder: Path) -> None:
    """Removes what processes that have ended left. In the locked folder."""
    for name in os.listdir(folder):
        if name.startswith((_WRITING, _LIVE)) and not _is_held(folder / name / _HELD):
            shutil.rmtree(folder / name, ignore_errors=True)


def _is_held(file: Path) -> bool:
    try:
        with open(file) as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def _files(folder: Path) -> dict[str, list[int]]:
    """All files below, but the manifest: size and checksum."""
    paths = (Path(at) / name for at, _, names in os.walk(folder) for name in names)
    return {
        str(path.relative_to(folder)): _checked(path) for path in sorted(paths) if path != folder / _MANIFEST
    }


def _checked(path: Path) -> list[int]:
    size, checksum = 0, 0
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(_PIECE):
            size += len(piece)
            checksum = zlib.crc32(piece, checksum)
    return [size, checksum]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
