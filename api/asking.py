"""How actors are asked: counted and timed, and again if the actor was just between two runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import TypeVar

from goatherd.actors import ActorStopped
from goatherd.errors import GoatherdError, Unavailable
from goatherd.telemetry import metrics

_TRIES = 5

Answer = TypeVar("Answer")


async def ask_until_there(
    name: str, ask: Callable[[], Awaitable[Answer]], check_gone: Callable[[], Awaitable[None]], *, actor: str
) -> Answer:
    """What `ask` gives, a request called `name`, of an `actor` as clients know it.

    `check_gone`: asked when there is no such actor. Raises what is to be told if it has ended; if it was just
    between two runs, returns.

    Raises `Unavailable` if it is never there.
    """
    for _ in range(_TRIES):
        outcome, started = "ok", perf_counter()
        try:
            return await ask()
        except ActorStopped:
            outcome = "stopped"
            await check_gone()
        except BaseException as error:
            outcome = error.code if isinstance(error, GoatherdError) else "cancelled"
            raise
        finally:
            metrics.ASKS.labels(name, outcome).inc()
            metrics.ASK_SECONDS.labels(name).observe(perf_counter() - started)
    raise Unavailable(f"{actor} can't be reached right now. Try again.")
