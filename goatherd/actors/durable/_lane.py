"""What one process asks of one actor: one call at a time, each with all that has come meanwhile.

What is not answered at once must not hold up the rest. A request that went alone, as an update of its own
name, is left waiting there, and goes along with the next call once more: so it is applied before what comes
after it, wherever it was, and by its id only once. In a call of several, those without an answer yet are
taken, and their answers are collected, all by one update.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

from pydantic import ValidationError
from temporalio.client import Client, RPCTimeoutOrCancelledError

from goatherd.actors._errors import ActorFailed, ActorStopped
from goatherd.actors._message import answer_type
from goatherd.actors._wire import adapter
from goatherd.actors.durable import _protocol as protocol
from goatherd.coalesce import Coalescer
from goatherd.errors import DeadlineExceeded, GoatherdError, TooManyRequests, from_code
from goatherd.temporal import ActorGone, execute

MOST_WAITING = 10_000
"""Messages that may wait for one actor in this process; more of them are refused at once."""
MOST_ALONE = 4
"""Requests that wait for their answers as updates of their own. Temporal takes ten in flight."""
PATIENCE_S = 0.1
"""A request that went alone holds up the next call for so long at most."""
MOST_BYTES = 1_000_000
"""Of the requests of one call. Temporal takes 2 MB."""

_A_TURN_S = 1e-6
"""Long enough for the event loop to have its turn."""


class Busy(TooManyRequests):
    """So many messages wait for the actor here already that another would wait for too long."""

    code = "actor-busy"


@dataclass(frozen=True, slots=True)
class Sent:
    """A request, and how long its asker waits. `entity`: whose it is, if the actor is a shard.
    `weight`: in bytes."""

    message: Any
    id: str
    timeout_s: float
    entity: str | None = None
    weight: int = 0


@dataclass(frozen=True, slots=True)
class _Later:
    """The actor has taken the request, or will; the answer comes here."""

    future: asyncio.Future[Any]

    async def answer(self) -> Any:
        # A call that is under way goes on when its asker does not: it ends by itself, when its time is over.
        return await (asyncio.shield(self.future) if isinstance(self.future, asyncio.Task) else self.future)


class Lane:
    """See the module. `waiting`: how many askers have no answer yet."""

    def __init__(
        self,
        client: Client,
        actor_id: str,
        by: str,
        *,
        task_queue: str,
        together: int,
        start: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`together`: requests of one call. `by`: who asks; the same for all of this process. `task_queue`:
        where the actor runs, for errors. `start`: of an actor that always exists, what makes it so."""
        self.waiting = 0
        self._client = client
        self._id = actor_id
        self._by = by
        self._task_queue = task_queue
        self._start = start
        self._calls: Coalescer[Sent, Any] = Coalescer(
            self._send,
            max_batch=together,
            # Those who were just answered may ask again at once: then they go along with who waits already.
            linger=lambda: _A_TURN_S if self.waiting > 1 else 0.0,
            weigh=lambda sent: sent.weight,
            max_weight=MOST_BYTES,
        )
        self._alone: dict[str, asyncio.Task[Any]] = {}
        self._unconfirmed: Sent | None = None
        self._tickets: dict[str, tuple[Sent, asyncio.Future[Any]]] = {}
        self._collecting: asyncio.Task[None] | None = None

    async def submit(self, sent: Sent) -> Any:
        """Raises what `Entity.ask` does."""
        if self.waiting >= MOST_WAITING:
            raise Busy(f"{MOST_WAITING} messages wait for {self._id!r} already. Try again in a moment.")
        # Here, where one that can't be written fails alone.
        sent = replace(sent, weight=_bytes(sent))
        self.waiting += 1
        try:
            async with asyncio.timeout(sent.timeout_s):
                answer = await self._calls.submit(sent)
                return await answer.answer() if isinstance(answer, _Later) else answer
        except TimeoutError:
            raise late(self._id, sent.timeout_s, self._task_queue) from None
        finally:
            self.waiting -= 1
            if not self.waiting and self._collecting is not None:
                self._collecting.cancel()
                self._collecting = None

    # -- calls

    async def _send(self, batch: Sequence[Sent]) -> Sequence[Any]:
        if len(batch) == 1 and self._unconfirmed is None and len(self._alone) < MOST_ALONE:
            return [await self._send_alone(batch[0])]
        before, self._unconfirmed = self._unconfirmed, None
        requests = batch if before is None else (before, *batch)
        outcomes: protocol.Outcomes = await self._execute(
            protocol.DELIVER,
            protocol.Delivery(items=[_item(sent) for sent in requests]),
            protocol.Outcomes,
            str(uuid4()),
            max(sent.timeout_s for sent in requests),
        )
        own = outcomes.items if before is None else outcomes.items[1:]
        results = [self._result(sent, outcome) for sent, outcome in zip(batch, own, strict=True)]
        if any(outcome.slow for outcome in own):
            self._collect()
        return results

    async def _send_alone(self, sent: Sent) -> Any:
        kind = type(sent.message)
        asking = asyncio.create_task(
            self._execute(
                kind.__name__,
                sent.message,
                answer_type(kind),
                sent.id,
                sent.timeout_s,
                more=() if sent.entity is None else (sent.entity,),
            )
        )
        self._alone[sent.id] = asking
        asking.add_done_callback(lambda done: self._answered_alone(sent, done))
        await asyncio.wait((asking,), timeout=PATIENCE_S)
        if asking.done():
            return await asking
        self._unconfirmed = sent
        return _Later(asking)

    def _answered_alone(self, sent: Sent, asking: asyncio.Task[Any]) -> None:
        self._alone.pop(sent.id, None)
        if not asking.cancelled():
            asking.exception()  # An asker that went away leaves nobody to retrieve it.
            if self._unconfirmed is sent:
                self._unconfirmed = None

    def _result(self, sent: Sent, outcome: protocol.Outcome) -> Any:
        if outcome.code is not None:
            error = from_code(outcome.code, outcome.message or "")
            error.pointer = outcome.pointer
            return error
        if not outcome.slow:
            try:
                return adapter(answer_type(type(sent.message))).validate_python(outcome.value)
            except ValidationError as error:  # The others of the call have theirs.
                return self._misfit(error)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._tickets[sent.id] = (sent, future)
        return _Later(future)

    # -- answers that come later

    def _collect(self) -> None:
        """Anew, as there are more: the actor lets go of the collection before."""
        self._collecting = asyncio.create_task(self._collect_all())

    async def _collect_all(self) -> None:
        me = asyncio.current_task()
        while self._collecting is me:
            for ticket_id, (_, future) in list(self._tickets.items()):
                if future.done():  # Its asker went away.
                    del self._tickets[ticket_id]
            wanted = [sent for sent, _ in self._tickets.values()]
            if not wanted:
                return
            try:
                await self._collect_once(wanted)
            except DeadlineExceeded:
                continue
            except Exception as error:
                if self._collecting is me:
                    self._fail_all(error)

    async def _collect_once(self, wanted: list[Sent]) -> None:
        outcomes: protocol.Outcomes = await self._execute(
            protocol.COLLECT,
            protocol.Collection(
                by=self._by,
                tickets=[protocol.Ticket(name=type(sent.message).__name__, id=sent.id) for sent in wanted],
            ),
            protocol.Outcomes,
            str(uuid4()),
            max(sent.timeout_s for sent in wanted),
        )
        for sent, outcome in zip(wanted, outcomes.items, strict=True):
            if outcome.slow or sent.id not in self._tickets:
                continue
            _, future = self._tickets.pop(sent.id)
            answer = self._result(sent, outcome)
            if future.done():
                continue
            if isinstance(answer, BaseException):
                future.set_exception(answer)
                future.exception()
            else:
                future.set_result(answer)

    def _fail_all(self, error: Exception) -> None:
        for _, future in self._tickets.values():
            if not future.done():
                future.set_exception(error)
                future.exception()
        self._tickets.clear()

    # -- the wire

    async def _execute(
        self, name: str, value: Any, answer: Any, ask_id: str, timeout_s: float, *, more: Sequence[Any] = ()
    ) -> Any:
        """Asks until it is answered or the time is over: an actor that goes on to its next run, again."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        delay_s = 0.0
        while True:
            left_s = max(deadline - loop.time(), 0.001)
            try:
                return await execute(
                    self._client, self._id, name, value, answer, timeout_s=left_s, ask_id=ask_id, more=more
                )
            except ValidationError as error:
                raise self._misfit(error) from error
            except GoatherdError as error:
                if isinstance(error.__cause__, TimeoutError | RPCTimeoutOrCancelledError):
                    raise late(self._id, timeout_s, self._task_queue) from error
                if isinstance(error, ActorGone) and self._start is not None and left_s > delay_s:
                    await self._start()
                elif error.code != protocol.MOVED or loop.time() + delay_s >= deadline:
                    raise _gone(error, self._id) from error
            await asyncio.sleep(delay_s)
            delay_s = min(max(delay_s * 2, 0.01), 0.5)

    def _misfit(self, error: ValidationError) -> ActorFailed:
        return ActorFailed(f"The answer of {self._id!r} does not fit: {error.errors()[0]['msg']}")


def _bytes(sent: Sent) -> int:
    return len(adapter(type(sent.message)).dump_json(sent.message))


def _item(sent: Sent) -> protocol.Item:
    kind = type(sent.message)
    return protocol.Item(
        name=kind.__name__,
        value=adapter(kind).dump_python(sent.message, mode="json"),
        id=sent.id,
        entity=sent.entity,
    )


def _gone(error: GoatherdError, actor_id: str) -> GoatherdError:
    return gone(actor_id) if isinstance(error, ActorGone) else error


def gone(actor_id: str) -> ActorStopped:
    return ActorStopped(f"{actor_id!r} has stopped, or does not exist.")


def late(actor_id: str, timeout_s: float, task_queue: str) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"{actor_id!r} gave no answer within {timeout_s:g} s. If it never does: perhaps no worker serves the "
        f"task queue {task_queue!r}, or its workflow task fails, of which the worker's log tells. The "
        "request may be applied all the same: repeated with the same id, it counts once."
    )
