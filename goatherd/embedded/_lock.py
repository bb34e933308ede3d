"""One `goatherd up` a data folder, and how others find the one that runs."""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from io import TextIOWrapper
from pathlib import Path
from types import TracebackType

from goatherd.errors import Conflict

LOCK = "up.lock"
_ATTEMPTS, _PAUSE_S = 20, 0.01


@dataclass(frozen=True, slots=True)
class Running:
    """The `goatherd up` that holds a folder. What it has not decided yet is empty."""

    pid: int = 0
    url: str = ""
    temporal: str = ""
    mongo_uri: str = ""


class AlreadyRunning(Conflict):
    """Another process holds the folder: `running` says which."""

    code = "already-running"

    def __init__(self, data: Path, running: Running) -> None:
        who = f"as process {running.pid}" if running.pid else "in another process"
        where = f", at {running.url}" if running.url else ""
        stop = f"`kill {running.pid}`" if running.pid else "end it"
        super().__init__(
            f"Goatherd is already running on {str(data)!r}, {who}{where}. To stop it: Ctrl-C in its "
            f"terminal, or {stop}. To run another one beside it: `--data FOLDER --port PORT`."
        )
        self.running = running


class FolderLock:
    """Holds a data folder while entered, and tells others who does.

    The kernel frees it however the process ends, so what a killed one left in the file does no harm.
    """

    def __init__(self, data: Path) -> None:
        self._data = data
        self._file: TextIOWrapper | None = None
        self.running = Running(pid=os.getpid())

    def __enter__(self) -> FolderLock:
        """Raises `AlreadyRunning`."""
        # Not "w": the holder's note must outlive our attempt.
        handle = os.open(self._data / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        file = os.fdopen(handle, "r+")
        for attempts_left in reversed(range(_ATTEMPTS)):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                file.seek(0)
                holder = _parse(file.read())
                # No note: somebody is only looking (`find_running`), or has taken it this very moment.
                if holder.pid or not attempts_left:
                    file.close()
                    raise AlreadyRunning(self._data, holder) from None
                time.sleep(_PAUSE_S)
        self._file = file
        self.tell(self.running)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None
        # The file stays: were it removed, a third process could lock a file that nobody else sees.
        self._file.seek(0)
        self._file.truncate()
        self._file.close()
        self._file = None

    def tell(self, running: Running) -> None:
        """Writes who holds the folder and where to find it."""
        assert self._file is not None
        self.running = running
        self._file.seek(0)
        self._file.truncate()
        json.dump(asdict(running), self._file)
        self._file.flush()


def find_running(data: Path) -> Running | None:
    """The `goatherd up` that holds this folder now, if there is one."""
    try:
        file = (data / LOCK).open()
    except OSError:
        return None
    with file:
        try:
            # Shared: two that look at the same moment don't take each other for a holder.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _parse(file.read())
    return None


def _parse(text: str) -> Running:
    with suppress(ValueError, TypeError):
        found = json.loads(text)
        if isinstance(found, dict):
            return Running(
                pid=int(found.get("pid", 0)),
                url=str(found.get("url", "")),
                temporal=str(found.get("temporal", "")),
                mongo_uri=str(found.get("mongo_uri", "")),
            )
    return Running()
