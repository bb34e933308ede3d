"""`goatherd up`: all that Goatherd needs, as children of one process, from first start to last stop."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from importlib.metadata import version
from pathlib import Path

from goatherd.embedded._environment import environment
from goatherd.embedded._http import get
from goatherd.embedded._lock import FolderLock, Running
from goatherd.embedded._ports import Ports, why_not
from goatherd.embedded._process import Child
from goatherd.embedded._readiness import Readiness
from goatherd.embedded._server import StartFailed
from goatherd.embedded._store import start_store
from goatherd.embedded._temporal import start_temporal
from goatherd.embedded.banner import Facts, Route, Screen, chat_command, without_secrets
from goatherd.embedded.join import client_host, url_of
from goatherd.settings import Settings

# A part of ours that dies this often before all is ready will not get there.
_HOPELESS = 5
# Seconds from the first signal until each stage has to be gone. The servers stand kill -9; the rest is ours.
_API_GONE, _WORKERS_GONE, _SERVERS_GONE = 2.0, 6.0, 8.7
_FORCED = 130


class Stack:
    """All the children. They start in the order servers, workers and API, and stop in the opposite one."""

    def __init__(self, settings: Settings, ports: Ports, screen: Screen) -> None:
        self.settings = settings
        self._ports = ports
        self._screen = screen
        self._servers: list[Child] = []
        self._workers: list[Child] = []
        self._api: list[Child] = []

    async def start_servers(self) -> None:
        """Starts what the settings do not name; after it they name all. Raises `StartFailed`."""
        try:
            async with asyncio.TaskGroup() as group:
                if not self.settings.temporal:
                    group.create_task(self._start_temporal())
                if not self.settings.mongo_uri:
                    group.create_task(self._start_store())
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def start_ours(self) -> None:
        """Starts workers and API, and returns at once."""
        base = self.settings
        inference = base
        if base.metrics_port:
            inference = base.model_copy(update={"metrics_port": _inference_metrics(base.metrics_port)})
        self._workers += [
            _ours("workers", base, "worker", *_pools("actors", "store", "retrieval")),
            _ours("inference", inference, "worker", "--pool", "inference"),
        ]
        self._api += [_ours("api", base, "api")]
        for child in (*self._workers, *self._api):
            await child.start()

    async def hopeless(self) -> None:
        """Raises `StartFailed` once a part of ours has died again and again."""
        waiting = {
            asyncio.ensure_future(child.died(_HOPELESS)): child for child in (*self._workers, *self._api)
        }
        try:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
        name = waiting[done.pop()].name
        raise StartFailed(f"{name!r} died {_HOPELESS} times while starting. What it said is above.")

    async def stop(self) -> None:
        """Ends all, first who asks, then who answers; within 10 s, also those that would not go."""
        began = time.monotonic()
        for children, gone in (
            (self._api, _API_GONE),
            (self._workers, _WORKERS_GONE),
            (self._servers, _SERVERS_GONE),
        ):
            grace = max(0.1, began + gone - time.monotonic())
            await asyncio.gather(*(child.stop(grace) for child in children))

    def kill(self) -> None:
        """Ends all at once and without asking; `stop` then only waits."""
        for child in (*self._api, *self._workers, *self._servers):
            child.kill()

    async def _start_temporal(self) -> None:
        found = await start_temporal(
            self.settings.data, self._ports, namespace=self.settings.temporal_namespace
        )
        self._servers.append(found.child)
        self._set(temporal=found.address, temporal_ui=found.ui)
        self._screen.step("Temporal", True, found.address)

    async def _start_store(self) -> None:
        found = await start_store(self.settings.data, self._ports)
        self._servers.append(found.child)
        self._set(mongo_uri=found.uri)
        self._screen.step("Store", True, without_secrets(found.uri))

    def _set(self, **values: str) -> None:
        self.settings = self.settings.model_copy(update=values)


async def up(settings: Settings, screen: Screen) -> int:
    """Runs until SIGTERM, SIGINT or SIGHUP; returns the exit code.

    Raises:
        AlreadyRunning: another `goatherd up` holds the data folder.
        StartFailed: a part could not be started.
    """
    settings = settings.model_copy(
        update={"data": settings.data.absolute(), "cache": settings.cache.absolute()}
    )
    _make_folder(settings.data)
    with FolderLock(settings.data) as lock:
        ports = Ports(settings.data)
        settings = settings.model_copy(update={"port": _api_port(settings, ports)})
        lock.tell(Running(pid=os.getpid(), url=url_of(settings)))
        stack = Stack(settings, ports, screen)
        asked = _Signals(stack)
        work = asyncio.create_task(_run(stack, lock, screen))
        stop = asyncio.create_task(asked.stop.wait())
        try:
            await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
            else:
                screen.say("Stopping …", "dim")
        finally:
            for task in (work, stop):
                task.cancel()
            await asyncio.gather(work, stop, return_exceptions=True)
            await stack.stop()
    return _FORCED if asked.forced else 0


class _Signals:
    """The first signal asks to stop, a Ctrl-C after that forces it."""

    def __init__(self, stack: Stack) -> None:
        self.stop = asyncio.Event()
        self.forced = False
        self._stack = stack
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue  # nohup
            loop.add_signal_handler(number, self._caught, number)

    def _caught(self, number: signal.Signals) -> None:
        if self.stop.is_set() and number == signal.SIGINT:
            self.forced = True
            self._stack.kill()
        self.stop.set()


async def _run(stack: Stack, lock: FolderLock, screen: Screen) -> None:
    """Starts all, shows the banner, and goes on for ever."""
    embedded_store = not stack.settings.mongo_uri
    await stack.start_servers()
    settings = stack.settings
    assert settings.temporal is not None
    assert settings.mongo_uri is not None
    lock.tell(
        Running(
            pid=os.getpid(),
            url=url_of(settings),
            temporal=settings.temporal,
            # Not somebody else's: it may hold a password.
            mongo_uri=settings.mongo_uri if embedded_store else "",
        )
    )
    await stack.start_ours()
    readiness = Readiness(client_host(settings.host), settings.port, screen.step)
    ready = asyncio.create_task(readiness.wait())
    hopeless = asyncio.create_task(stack.hopeless())
    try:
        await asyncio.wait({ready, hopeless}, return_when=asyncio.FIRST_COMPLETED)
        if hopeless.done():
            hopeless.result()
        screen.banner(_facts(settings, await _routes(settings)))
    finally:
        for task in (ready, hopeless):
            task.cancel()
        await asyncio.gather(ready, hopeless, return_exceptions=True)
    await asyncio.Event().wait()


def _ours(name: str, settings: Settings, *arguments: str) -> Child:
    return Child(name, [*_goatherd(), *arguments], env=environment(settings))


def _pools(*names: str) -> list[str]:
    return [word for name in names for word in ("--pool", name)]


def _goatherd() -> list[str]:
    # -P: an `api` or `workers` folder where the user stands must not be taken for ours.
    return [sys.executable, "-P", "-m", "goatherd"]


async def _routes(settings: Settings) -> list[Route]:
    """The route table, from the API: its libraries would double this process's memory. Empty if it fails."""
    try:
        _, body = await get(client_host(settings.host), settings.port, "/")
        return [(row["method"], row["path"], row["summary"]) for row in json.loads(body)["routes"]]
    except (OSError, ValueError, KeyError):
        return []


def _facts(settings: Settings, routes: list[Route]) -> Facts:
    url = url_of(settings)
    spec = settings.models.get(settings.model)
    return Facts(
        version=version("goatherd"),
        url=url,
        temporal=f"{settings.temporal} (namespace {settings.temporal_namespace})",
        temporal_ui=settings.temporal_ui,
        mongo_uri=settings.mongo_uri or "",
        data=settings.data,
        model=f"{settings.model} ({spec.provider} {spec.source})".replace(" )", ")")
        if spec
        else settings.model,
        routes=routes,
        chat=chat_command(url, found=settings.data == _default_data()),
        metrics=_metrics(settings),
    )


def _metrics(settings: Settings) -> str:
    if not settings.metrics_port:
        return ""
    ports = {"models": _inference_metrics(settings.metrics_port), "other workers": settings.metrics_port}
    return ", ".join(
        f"{url_of(settings.model_copy(update={'port': port}))}/metrics ({what})"
        for what, port in ports.items()
    )


def _inference_metrics(port: int) -> int:
    """Two processes, of two ports each: the second one is that of Temporal's SDK."""
    return port + 2


def _default_data() -> Path:
    """The folder in which `goatherd chat` looks when it is told none."""
    data: Path = Settings.model_fields["data"].default
    return data.absolute()


def _make_folder(data: Path) -> None:
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Chats don't belong into the version control of whoever starts us in a project.
        (data / ".gitignore").write_text("*\n")
    except OSError as error:
        raise StartFailed(
            f"Can't use the data folder {str(data)!r}: {error.strerror or error}. "
            "Give another by `--data FOLDER` (GOATHERD_DATA)."
        ) from error


def _api_port(settings: Settings, ports: Ports) -> int:
    if settings.port == 0:
        return ports.pick("api", host=settings.host)
    reason = why_not(settings.host, settings.port)
    if reason is not None:
        raise StartFailed(
            f"The API can't listen on {settings.host} port {settings.port}: {reason}. Choose another by "
            f"`--port {settings.port + 1 if settings.port < 65_535 else 8080}` (GOATHERD_PORT); "
            "`--port 0` takes any that is free."
        )
    ports.note("api", settings.port)
    return settings.port
