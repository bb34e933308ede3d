"""A server that speaks Elasticsearch's REST, for tests: on loopback, in a temporary folder, ended by its own
pid."""

from __future__ import annotations

import http.client
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import Phase

from tests.servers import free_port

NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)
"""Of properties that such a server has: a shorter example is worth less than the minutes that it takes."""


class ElasticServer:
    """It can be killed and started again, with what it had or with nothing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Returns when it answers."""
        # The program itself: the script of its name starts it as a child, which outlives the script.
        with as_file(files("noida_db") / "noida-db") as program:
            os.chmod(program, 0o755)
            options = ("--data-dir", str(self._folder), "--only", "elasticsearch")
            self._process = subprocess.Popen(
                [str(program), "start", *options, "--elasticsearch-port", str(self._port)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        deadline = time.monotonic() + 20
        while not self._answers():
            assert self._process.poll() is None, "the server ended by itself"
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.01)

    def kill(self) -> None:
        """kill -9; returns when it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=1)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()


@contextmanager
def elastic_server() -> Iterator[ElasticServer]:
    """A server that runs, with nothing in it."""
    with TemporaryDirectory(prefix="goatherd-elastic-", ignore_cleanup_errors=True) as folder:
        server = ElasticServer(Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.kill()
