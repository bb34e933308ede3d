"""One `goatherd up` a data folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from goatherd.embedded._lock import LOCK, AlreadyRunning, FolderLock, Running, find_running
from goatherd.embedded.join import api_url, join
from goatherd.errors import Invalid
from goatherd.settings import Settings

HOLDER = Running(
    pid=4711, url="http://127.0.0.1:8080", temporal="127.0.0.1:7233", mongo_uri="mongodb://127.0.0.1:1/"
)


def test_the_second_is_told_who_the_first_is_and_how_to_stop_it(tmp_path: Path) -> None:
    with FolderLock(tmp_path) as lock:
        lock.tell(HOLDER)
        with pytest.raises(AlreadyRunning) as refused, FolderLock(tmp_path):
            pass
    assert refused.value.running == HOLDER
    for part in ("already running", "4711", HOLDER.url, "kill 4711", "--data", str(tmp_path)):
        assert part in refused.value.message


def test_a_lock_given_back_can_be_taken_again(tmp_path: Path) -> None:
    for _ in range(2):
        with FolderLock(tmp_path):
            assert find_running(tmp_path) is not None
        assert find_running(tmp_path) is None


def test_what_a_killed_holder_left_does_not_count(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from goatherd.embedded._lock import *\n"
        "with FolderLock(Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    )
    died = subprocess.run([sys.executable, "-c", code, tmp_path], check=False)
    assert died.returncode == -9
    assert (tmp_path / LOCK).read_text()
    assert find_running(tmp_path) is None
    with FolderLock(tmp_path) as lock:
        assert find_running(tmp_path) == lock.running


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"pid": []}', '{"pid": "x"}'])
def test_a_note_that_cannot_be_read_still_refuses(tmp_path: Path, text: str) -> None:
    with FolderLock(tmp_path):
        (tmp_path / LOCK).write_text(text)
        with pytest.raises(AlreadyRunning, match="already running") as refused, FolderLock(tmp_path):
            pass
    assert refused.value.running == Running()


def test_nothing_runs_where_there_is_no_folder(tmp_path: Path) -> None:
    assert find_running(tmp_path / "none") is None


def test_others_find_the_servers_and_the_api_of_the_one_that_runs(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, port=9)
    with FolderLock(tmp_path) as lock:
        lock.tell(HOLDER)
        joined = join(settings)
        assert (joined.temporal, joined.mongo_uri) == (HOLDER.temporal, HOLDER.mongo_uri)
        assert api_url(settings) == HOLDER.url
    assert api_url(settings) == "http://127.0.0.1:9"
    with pytest.raises(Invalid, match=r"GOATHERD_TEMPORAL.*GOATHERD_MONGO_URI"):
        join(settings)


def test_servers_that_are_named_win_over_those_that_run(tmp_path: Path) -> None:
    with FolderLock(tmp_path) as lock:
        lock.tell(HOLDER)
        joined = join(Settings(data=tmp_path, temporal="elsewhere:7233"))
    assert (joined.temporal, joined.mongo_uri) == ("elsewhere:7233", HOLDER.mongo_uri)
