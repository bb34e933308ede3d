"""Servers that tests start for themselves: on loopback, in a temporary folder, ended by their own pid."""

from __future__ import annotations

import asyncio
import shutil
import socket
import sysconfig
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError


def program(name: str) -> str:
    """A command that the project's packages brought along."""
    found = shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)
    assert found, f"{name} is not installed: make install"
    return found


def free_port() -> int:
    """A port that nobody has right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class EmbeddedStore:
    """The development store, as a process of its own that can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._process: asyncio.subprocess.Process | None = None

    @property
    def uri(self) -> str:
        return f"mongodb://127.0.0.1:{self._port}/?directConnection=true"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Returns when it answers."""
        config = self._folder / "store.toml"  # naming one keeps it from looking for the user's own
        config.touch()
        self._process = await asyncio.create_subprocess_exec(
            program("secantusd-py"),
            *("--config", str(config), "--host", "127.0.0.1", "--port", str(self._port)),
            *("--storage-path", str(self._folder / "data"), "--sync-on-commit"),
            *("--cache-size", "512M", "--log-level", "ERROR"),
            cwd=self._folder,
        )
        async with AsyncMongoClient[dict[str, object]](self.uri, serverSelectionTimeoutMS=100) as client:
            async with asyncio.timeout(20):
                while True:
                    assert self._process.returncode is None, "the store ended by itself"
                    try:
                        await client.admin.command("ping")
                        return
                    except PyMongoError:
                        await asyncio.sleep(0.01)

    async def kill(self) -> None:
        """kill -9; returns when it is gone."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def restart(self) -> None:
        """Starts it again on the same port and folder."""
        await self.kill()
        await self.start()


@asynccontextmanager
async def embedded_store() -> AsyncIterator[EmbeddedStore]:
    """A store that runs, with nothing in it."""
    with TemporaryDirectory(prefix="goatherd-store-", ignore_cleanup_errors=True) as folder:
        store = EmbeddedStore(Path(folder))
        try:
            await store.start()
            yield store
        finally:
            await store.kill()
