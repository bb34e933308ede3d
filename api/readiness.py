"""Whether requests can be served: each part is asked, all at once, within a bound."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from datetime import timedelta
from typing import Protocol

from temporalio.client import Client
from temporalio.service import RPCError

from activities.ports import ChatStore, WorkerRegistry, WorkerStatus
from api.schemas import CheckResult, ReadyReport
from goatherd.contracts.queues import Pool
from goatherd.errors import GoatherdError
from goatherd.settings import Settings

CHECK_TIMEOUT_S = 2.0
_TEMPORAL_TIMEOUT = timedelta(seconds=1)
_WORKERS_WITHIN_S = 6.0
_ON_DEMAND = "loaded when it is first asked for"

Check = Callable[[], Awaitable[CheckResult]]


_NEEDED = (Pool.ACTORS, Pool.INFERENCE, Pool.STORE)
_WELCOME = (Pool.RETRIEVAL,)
"""These are named if they are there: whoever has no indexes needs no such worker."""


class HasReady(Protocol):
    @property
    def ready(self) -> bool: ...


class Readiness:
    """Temporal, the store, the worker pools, the default model, the change streams."""

    def __init__(
        self,
        *,
        client: Client,
        store: ChatStore,
        workers: WorkerRegistry,
        feeds: Sequence[HasReady],
        settings: Settings,
    ) -> None:
        self._client = client
        self._store = store
        self._workers = workers
        self._feeds = feeds
        self._settings = settings
        self._had_it: set[str] = set()
        """Workers that have had the default model: what they load now, somebody has put out before."""

    async def report(self) -> ReadyReport:
        temporal, store, workers = await asyncio.gather(
            _checked(self._temporal), _checked(self._ping), self._pools_and_model()
        )
        ready = all(feed.ready for feed in self._feeds)
        feed = CheckResult(ok=ready, detail="open" if ready else "The change stream is not open yet.")
        checks = {"temporal": temporal, "store": store, "feed": feed, **workers}
        every = all(check.ok for check in checks.values())
        return ReadyReport(status="ready" if every else "starting", checks=checks)

    async def _temporal(self) -> CheckResult:
        healthy = await self._client.service_client.check_health(timeout=_TEMPORAL_TIMEOUT)
        return CheckResult(ok=healthy, detail="serving" if healthy else "It says that it is not serving.")

    async def _ping(self) -> CheckResult:
        await self._store.ping()
        return CheckResult(ok=True, detail="answers")

    async def _pools_and_model(self) -> Mapping[str, CheckResult]:
        names = [f"workers.{pool}" for pool in _NEEDED] + ["model"]
        found: list[WorkerStatus] = []

        async def look() -> CheckResult:
            found.extend(await self._workers.alive(within_s=_WORKERS_WITHIN_S))
            return CheckResult(ok=True, detail="")

        looked = await _checked(look)
        if not looked.ok:
            return dict.fromkeys(names, looked)
        return {
            **{f"workers.{pool}": _pool(pool, found) for pool in _NEEDED},
            **{
                f"workers.{pool}": CheckResult(ok=True, detail=_pool(pool, found).detail)
                for pool in _WELCOME
                if any(pool in worker.pools for worker in found)
            },
            "model": self._model(found),
        }

    def _model(self, found: list[WorkerStatus]) -> CheckResult:
        name = self._settings.model
        self._had_it &= {worker.identity for worker in found}
        self._had_it |= {
            worker.identity
            for worker in found
            if name in worker.models and worker.standing(name)[0] in ("ready", "unloaded")
        }
        return _model(self._settings, found, self._had_it)


async def _checked(check: Check) -> CheckResult:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            return await check()
    except TimeoutError:
        return CheckResult(ok=False, detail=f"No answer within {CHECK_TIMEOUT_S:g} s.")
    except GoatherdError as error:
        return CheckResult(ok=False, detail=error.message)
    except RPCError as error:
        return CheckResult(ok=False, detail=f"Can't be reached ({error.status.name.lower()}).")
    except Exception as error:
        # Whatever is wrong with a part, the report still has to name it.
        return CheckResult(ok=False, detail=f"{type(error).__name__}: {error}"[:200])


def _pool(pool: Pool, found: list[WorkerStatus]) -> CheckResult:
    serving = [worker for worker in found if pool in worker.pools]
    ready = sum(worker.state == "ready" for worker in serving)
    if ready:
        return CheckResult(ok=True, detail=f"{ready} ready")
    if not serving:
        return CheckResult(ok=False, detail=f"No worker of the pool {pool.value!r} is running.")
    said = "; ".join(sorted({f"{worker.state} {worker.detail}".strip() for worker in serving}))
    return CheckResult(ok=False, detail=said)


def _model(settings: Settings, found: list[WorkerStatus], had_it: Container[str]) -> CheckResult:
    """The best that any worker says of the default model. `had_it`: the workers that can be asked for it, if
    they have it at the moment or not."""
    name = settings.model
    states = {worker.models[name] for worker in found if name in worker.models}
    resting = any(
        worker.standing(name)[0] in ("unloaded", "loading")
        for worker in found
        if worker.identity in had_it and name in worker.models
    )
    if resting and "ready" not in states:
        return CheckResult(ok=True, detail=f"{name}: {_ON_DEMAND}")
    for best in ("ready", "loading"):
        said = [state for state in sorted(states) if state.partition(": ")[0] == best]
        if said:
            return CheckResult(ok=best == "ready", detail=f"{name}: {said[-1]}")
    if states:
        return CheckResult(ok=False, detail=f"{name}: {min(states)}")
    if not settings.preload:
        return CheckResult(ok=True, detail=f"{name}: {_ON_DEMAND}")
    return CheckResult(ok=False, detail=f"{name}: no worker has it yet")
