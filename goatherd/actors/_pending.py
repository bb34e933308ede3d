"""What an actor waits for: its timers, its work, the answers to its asks, and what comes to its adapters."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

from goatherd.actors._activity import PutOff
from goatherd.actors._environment import Work
from goatherd.actors._local_ref import Adapter, Asked
from goatherd.actors._mail import Adapted, Notice, Piped, Rang, Stopped
from goatherd.actors._message import Request
from goatherd.actors._ref import Ref
from goatherd.actors._states import SHUT
from goatherd.actors._timers import Timer
from goatherd.errors import GoatherdError

if TYPE_CHECKING:
    from goatherd.actors._cell import Cell
    from goatherd.actors._runtime import Runtime


class Pending:
    """The half of a cell that begins what takes time. All of it comes back as something in the mailbox."""

    __slots__ = ("_works", "adapters", "limit", "runtime", "timers", "work")

    address: str
    ref: Ref[Any]

    def __init__(self, runtime: Runtime, limit: int) -> None:
        self.runtime = runtime
        self.limit = limit
        self.timers: dict[str, Timer] = {}
        self.adapters: list[Callable[[Any], Any]] = []
        self._works = 0
        self.work: dict[int, Piped] = {}

    def deliver(self, internal: Rang | Adapted | Stopped | Notice) -> None:
        """Puts something internal in the mailbox."""
        raise NotImplementedError

    # -- timers and work

    def start_timer(self, timer: Timer) -> None:
        self.cancel_timer(timer.key)
        if self.limit == SHUT:
            return
        self.timers[timer.key] = timer
        self.runtime.deadlines.add(timer)

    def cancel_timer(self, key: str) -> None:
        timer = self.timers.pop(key, None)
        if timer is not None:
            self.runtime.deadlines.cancel(timer)

    def cancel_timers(self) -> None:
        for key in list(self.timers):
            self.cancel_timer(key)

    def rang(self, timer: Timer) -> None:
        self.deliver(Rang(timer))

    def pipe(
        self,
        work: Awaitable[Any],
        ok: Callable[[Any], Any],
        err: Callable[[BaseException], Any] | None,
        *,
        key: str | None = None,
    ) -> Work:
        self._works += 1
        number = self._works

        def done(value: Any, error: BaseException | None) -> None:
            if self.work.pop(number, None) is None and self.limit == SHUT:
                return
            self.deliver(Adapted(ok, value) if error is None else Adapted(err, error))

        under_way = self.runtime.environment.run(work, done)
        self.work[number] = Piped(under_way, work, ok, err, key)
        if isinstance(under_way, PutOff):
            under_way.on_cancel = lambda: done(None, CancelledError())
        return under_way

    def cancel_work(self, key: str) -> None:
        for piped in list(self.work.values()):
            if piped.key == key:
                piped.handle.cancel()

    def ask(
        self,
        ref: Ref[Any],
        request: Any,
        ok: Callable[[Any], Any],
        err: Callable[[Any], Any],
        timeout_s: float,
    ) -> None:
        deadline = self.runtime.environment.now() + timeout_s
        promise = self.await_answer(self.runtime.promise_address(), ok, err, deadline)
        # Of a message with the address in a field, too, the asker learns that it fails or is not handled.
        ref.send(request if isinstance(request, Request) else request(promise), promise)

    def await_answer(
        self,
        address: str,
        ok: Callable[[Any], Any],
        err: Callable[[Any], Any],
        deadline: float,
        *,
        number: int = 0,
    ) -> Ref[Any]:
        """The address of an answer that comes to this actor. `number`: its timer's, if it had one."""

        def done(answer: Any, error: GoatherdError | None) -> None:
            self.deliver(Adapted(ok, answer) if error is None else Adapted(err, error))

        return self.runtime.promise(
            done, deadline, address=address, owner=Asked(self, ok, err), number=number
        )

    def adapter(self, adapt: Callable[[Any], Any]) -> Ref[Any]:
        for number, known in enumerate(self.adapters):
            if known is adapt:
                return Adapter(self._cell, number, adapt)
        self.adapters.append(adapt)
        return Adapter(self._cell, len(self.adapters) - 1, adapt)

    def adapter_at(self, number: int) -> Ref[Any]:
        """Raises `IndexError` if it has no such adapter."""
        return Adapter(self._cell, number, self.adapters[number])

    @property
    def _cell(self) -> Cell:
        return cast("Cell", self)
