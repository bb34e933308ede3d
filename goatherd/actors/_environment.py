"""What the runtime needs from where it runs: a clock, luck, a way to be called again. A port.

The runtime itself does no I/O and reads no clock, so that the same code runs in a Temporal workflow, where a
replay must go the same way, in plain asyncio, and in tests, where time is moved by hand.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

from goatherd.actors._ref import Ref


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that nobody got, and why: `stopped`, `no-such-actor`, `mailbox-full`, `stash-full`,
    `no-routees`, `not-an-ask`."""

    message: Any
    recipient: str
    reason: str


class Work(Protocol):
    """Something under way outside of the actors, as `asyncio.Future` is."""

    def cancel(self) -> Any: ...


class Environment(Protocol):
    """Where a runtime runs."""

    @property
    def logger(self) -> logging.Logger | logging.LoggerAdapter[Any]: ...

    @property
    def random(self) -> Random: ...

    def now(self) -> float:
        """Seconds since 1970."""
        ...

    def wake(self) -> None:
        """There are messages: `Runtime.drain` is to be called soon."""
        ...

    def alarm(self, when: float | None) -> None:
        """`Runtime.ring` is to be called at `when`, and at no other time that was asked for before."""
        ...

    def run(self, work: Awaitable[Any], done: Callable[[Any, BaseException | None], None]) -> Work:
        """Has `work` run, and calls `done` with its result or what it raised; also if it is cancelled."""
        ...

    def dead_letter(self, letter: DeadLetter) -> None:
        """Nobody got this."""
        ...

    def remote(self, address: str) -> Ref[Any] | None:
        """The ref of an address that is not of this runtime; None if it can't be reached from here."""
        ...

    def start_child(self, kind: Any, child_id: str, start: Any) -> Ref[Any]:
        """Starts a durable actor."""
        ...

    def watch(self, watched: Ref[Any], watcher: str) -> None:
        """`Runtime.terminated` is to be called when `watched`, of another runtime, has stopped."""
        ...

    def tell_terminated(self, watched: str, watcher: str) -> None:
        """Tells `watcher`, of another runtime, that `watched`, of this one, has stopped."""
        ...

    def unwatch(self, watched: Ref[Any], watcher: str) -> None:
        """The end of `watch`."""
        ...
