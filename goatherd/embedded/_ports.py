"""Which ports to use: those of the last time where they are free, and remembered for the next time."""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from pathlib import Path

MEMORY = "run.json"


def why_not(host: str, port: int) -> str | None:
    """Why a server could not listen there now (`Address already in use` …); None if it could."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            # As servers do: a connection that is only being forgotten does not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            # Without listening, a port that is bound with SO_REUSEADDR elsewhere looks free.
            probe.listen(1)
    except OSError as error:
        return error.strerror or str(error)
    return None


def any_free(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on now."""
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as server:
        port: int = server.getsockname()[1]
        return port


class Ports:
    """The ports of one data folder, kept in `run.json` so that a restart finds the same ones."""

    def __init__(self, data: Path) -> None:
        self._path = data / MEMORY
        self._known = _read(self._path)
        self._given: set[int] = set()

    def pick(self, part: str, *, host: str = "127.0.0.1", usual: int | None = None) -> int:
        """The port the part had last, else its usual one, else any; free, and given to no other part here."""
        for port in (self._known.get(part), usual):
            if port is not None and port not in self._given and why_not(host, port) is None:
                break
        else:
            port = any_free(host)
        self.note(part, port)
        return port

    def note(self, part: str, port: int) -> None:
        """Remembers the port of a part."""
        self._given.add(port)
        self._known[part] = port
        scratch = self._path.with_suffix(".tmp")
        scratch.write_text(json.dumps(self._known, indent=2) + "\n")
        os.replace(scratch, self._path)

    def forget(self, part: str) -> None:
        """Does not ask for the part's last port again: somebody was quicker."""
        self._known.pop(part, None)


def _read(path: Path) -> dict[str, int]:
    # Only a convenience: what can't be read is as good as not there.
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text())
        if isinstance(found, dict):
            return {part: port for part, port in found.items() if isinstance(port, int) and 0 < port < 65_536}
    return {}
