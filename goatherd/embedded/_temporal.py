"""Temporal's dev server, with its UI, on a database file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from goatherd.embedded._http import get
from goatherd.embedded._ports import Ports
from goatherd.embedded._process import Child
from goatherd.embedded._server import Probe, bare_environment, program, start_server

HOST = "127.0.0.1"
SEARCH_ATTRIBUTES = {"GoatherdOwner": "Keyword", "GoatherdStatus": "Keyword"}
# What `temporal` assumes: with these, its CLI works here without `--address`.
_USUAL_PORT, _USUAL_UI_PORT = 7233, 8233


@dataclass(frozen=True, slots=True)
class EmbeddedTemporal:
    """A running dev server. It survives kill -9 at any time with all that it has acknowledged."""

    child: Child
    address: str
    ui: str


async def start_temporal(data: Path, ports: Ports, *, namespace: str = "default") -> EmbeddedTemporal:
    """Starts it on `<data>/temporal.db`, with the namespace and the search attributes we use.

    Raises:
        StartFailed: it is not installed, or does not come up.
    """
    binary = program("temporal", instead="use a server of your own: `--temporal HOST:PORT`")
    log_file = data / "logs" / "temporal.log"
    place = {"port": 0, "ui": 0}

    def attempt() -> tuple[Child, Probe]:
        if place["port"]:
            ports.forget("temporal")
            ports.forget("temporal-ui")
        place["port"] = ports.pick("temporal", host=HOST, usual=_USUAL_PORT)
        place["ui"] = ports.pick("temporal-ui", host=HOST, usual=_USUAL_UI_PORT)
        argv = _argv(binary, data / "temporal.db", place["port"], place["ui"], namespace)
        child = Child("temporal", argv, env=bare_environment(), cwd=data, log_file=log_file)
        return child, lambda: _ready(place["ui"], namespace)

    child = await start_server(attempt, log_file=log_file)
    return EmbeddedTemporal(child, f"{HOST}:{place['port']}", f"http://{HOST}:{place['ui']}")


def _argv(binary: str, database: Path, port: int, ui_port: int, namespace: str) -> list[str]:
    options = {
        "--ip": HOST,
        "--port": str(port),
        "--ui-port": str(ui_port),
        "--db-filename": str(database),
        "--namespace": namespace,
        "--log-level": "error",
    }
    argv = [binary, "server", "start-dev", "--ui-disable-news-fetch", "--disable-config-file"]
    argv += [part for option in options.items() for part in option]
    # Write-ahead log and full sync: twice the rate of the default journal, as safe against kill -9.
    for pragma in ("journal_mode=wal", "synchronous=2"):
        argv += ["--sqlite-pragma", pragma]
    for name, kind in SEARCH_ATTRIBUTES.items():
        argv += ["--search-attribute", f"{name}={kind}"]
    return argv


async def _ready(ui_port: int, namespace: str) -> bool:
    # Through the UI: this answers only when it, the frontend, the namespace and the attributes are all there.
    status, body = await get(HOST, ui_port, f"/api/v1/namespaces/{namespace}/search-attributes")
    return status == 200 and json.loads(body).get("customAttributes", {}).keys() >= SEARCH_ATTRIBUTES.keys()
