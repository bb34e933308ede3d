"""The MongoDB-compatible server, for development: a process of its own, never imported."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass
from pathlib import Path

from goatherd.embedded._ports import Ports
from goatherd.embedded._process import Child
from goatherd.embedded._server import Probe, bare_environment, program, start_server

HOST = "127.0.0.1"

# `{ping: 1, $db: "admin"}` as an OP_MSG: a driver would cost this process more memory than all else in it.
_PING_BODY = b"\x10ping\x00\x01\x00\x00\x00" + b"\x02$db\x00\x06\x00\x00\x00admin\x00" + b"\x00"
_PING_BSON = struct.pack("<i", 4 + len(_PING_BODY)) + _PING_BODY
_OP_MSG = 2013
_PING = struct.pack("<iiiiiB", 16 + 5 + len(_PING_BSON), 1, 0, _OP_MSG, 0, 0) + _PING_BSON
_OK = b"\x01ok\x00" + struct.pack("<d", 1.0)


@dataclass(frozen=True, slots=True)
class EmbeddedStore:
    """A running store. It survives kill -9 at any time with all that it has acknowledged."""

    child: Child
    uri: str


async def start_store(data: Path, ports: Ports) -> EmbeddedStore:
    """Starts it on `<data>/store`.

    Raises:
        StartFailed: it is not installed, or does not come up.
    """
    binary = program("secantusd-py", instead="use a server of your own: `--mongo-uri mongodb://…`")
    log_file = data / "logs" / "store.log"
    # Naming a file, even an empty one, keeps it from looking for others in the user's folders.
    config = data / "store.toml"
    config.write_text("# Empty on purpose: Goatherd gives all options on the command line.\n")
    port = 0

    def attempt() -> tuple[Child, Probe]:
        nonlocal port
        if port:
            ports.forget("store")
        port = ports.pick("store", host=HOST)
        argv = _argv(binary, config, data / "store", port)
        child = Child("store", argv, env=bare_environment(), cwd=data, log_file=log_file)
        return child, lambda: _ping(port)

    child = await start_server(attempt, log_file=log_file)
    return EmbeddedStore(child, f"mongodb://{HOST}:{port}/?directConnection=true")


def _argv(binary: str, config: Path, storage: Path, port: int) -> list[str]:
    options = {
        "--config": str(config),
        "--host": HOST,
        "--port": str(port),
        "--storage-path": str(storage),
        # A bound, not what it takes. With less, some tens of megabytes that are written at once stop it for
        # good: what is not committed can't leave its cache.
        "--cache-size": "512M",
        "--log-level": "WARNING",
        # Keeps the resume tokens of quiet change streams alive.
        "--noop-heartbeat-seconds": "10",
    }
    # Without --sync-on-commit a kill -9 loses writes that were acknowledged.
    return [binary, "--sync-on-commit", *(part for option in options.items() for part in option)]


async def _ping(port: int) -> bool:
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        writer.write(_PING)
        async with asyncio.timeout(2):
            (length,) = struct.unpack("<i", await reader.readexactly(4))
            return _OK in await reader.readexactly(length - 4)
    except (TimeoutError, asyncio.IncompleteReadError):
        return False
    finally:
        writer.close()
