"""What is asked and told from outside: each message once, each answered for itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic_core import to_json
from temporalio.exceptions import ApplicationError

from goatherd.actors._errors import ActorError, ActorFailed, ActorStopped, Unhandled
from goatherd.actors._message import Request, answer_type
from goatherd.actors._ref import Ref, resolving
from goatherd.actors._runtime import Runtime
from goatherd.actors._wire import adapter
from goatherd.actors.durable import _protocol as protocol
from goatherd.actors.durable._window import Seen, Window
from goatherd.errors import GoatherdError, Invalid
from goatherd.temporal import failure

if TYPE_CHECKING:
    from goatherd.actors._cell import Cell
    from goatherd.actors.durable._entities import Entities


class AlreadyApplied(ActorError):
    """The message was applied before, so long ago that its answer is not kept."""

    code = "already-applied"


class Moved(ActorError):
    """The actor goes on to its next run: the same request is to be asked again, with the same id."""

    code = protocol.MOVED
    retryable = True


MOST_BYTES = 1_000_000
"""Of the answers of one delivery, unless one is more. Temporal takes 2 MB, and more would stop the actor."""


class Asks:
    """Takes messages for the root actor, and keeps who waits for which answer."""

    def __init__(
        self, runtime: Runtime, messages: dict[str, type[Any]], window: Window, *, idempotent: bool
    ) -> None:
        """Before the tree is read: what it keeps may be the address of an open ask. `idempotent`: see
        `DurableActor`."""
        self._idempotent = idempotent
        self.root: Cell
        self.entities: Entities | None = None
        self._runtime = runtime
        self._messages = messages
        self._window = window
        self._waiting: dict[str, list[asyncio.Future[Any]]] = {}
        self._collecting: dict[str, asyncio.Future[None]] = {}
        self._collected: dict[str, asyncio.Future[None]] = {}
        for seen in window.open:
            self._promise(seen, seen.promise)

    def read(self, kind: type[Any], value: Any) -> Any:
        """A message from its fields. Raises `Invalid` if they do not fit."""
        try:
            with resolving(self._runtime.resolve):
                return adapter(kind).validate_python(value)
        except ValidationError as error:
            raise Invalid(f"{kind.__name__} does not fit: {_first(error)}") from error
        except GoatherdError:
            raise
        except Exception as error:  # Of the class itself: pydantic lets pass what is no `ValueError`.
            raise Invalid(f"{kind.__name__} does not fit: {type(error).__name__}: {error}") from error

    def check(self, message: Any, entity: str | None = None) -> None:
        """Raises what the actor has against a message; changes nothing."""
        if self.root.failure is not None or self.root.limit < 0:
            raise ActorStopped(f"{self.root.address} has stopped.")
        try:
            if self.entities is not None:
                self.entities.check(entity, message)
            else:
                self.root.behavior.check(message)
        except GoatherdError:
            raise
        except Exception as error:
            # In a delivery it must not fail the others, nor be tried for ever.
            raise ActorFailed(f"{type(error).__name__}: {error}") from error

    def _to(self, entity: str | None) -> Ref[Any]:
        """Whose message it is. Raises `Invalid` if a shard is not told."""
        return self.root.ref if self.entities is None else self.entities.ref_of(entity)

    def tell(self, message: Any, meta: protocol.Meta | None) -> None:
        to = self._to(None if meta is None else meta.entity)
        reply_to = None
        if meta is not None:
            if meta.id is not None:
                if self._window.get(meta.id) is not None:
                    return
                self._window.add(meta.id)
            if meta.reply_to is not None:
                reply_to = self._runtime.resolve(meta.reply_to)
        to.send(message, reply_to)

    def take(self, message: Any, message_id: str, entity: str | None = None) -> Seen:
        """Sends a request on, unless it was taken before."""
        seen = self._window.get(message_id)
        if seen is None or (self._idempotent and not seen.kept):
            to = self._to(entity)
            seen = self._window.add(message_id)
            to.send(message, self._promise(seen, None))
        return seen

    async def answer(self, seen: Seen) -> Any:
        """What the request is answered, as soon as it is. Raises what it is refused with."""
        if seen.open:
            future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(seen.id, []).append(future)
            return await future
        if seen.error is not None:
            raise as_failure(seen.error)
        if not seen.kept:
            raise as_failure(AlreadyApplied("It was applied before, and its answer is not kept any more."))
        return seen.value

    def let_go(self) -> None:
        """Those who still wait are to ask again, of the next run."""
        for futures in self._waiting.values():
            for future in futures:
                if not future.done():
                    future.set_exception(
                        as_failure(Moved("The actor went on to its next run: ask again with the same id."))
                    )
        self._waiting.clear()
        for collecting in list(self._collecting.values()):
            _wake(collecting)
        self._collecting.clear()
        self._collected.clear()

    def stopped(self) -> None:
        """The root has stopped: nobody answers any more."""
        for seen in self._window.open:
            if seen.promise is not None:
                self._runtime.resolve(seen.promise).fail(
                    ActorStopped(f"{self.root.address} stopped before it answered.")
                )

    # -- several at once

    def take_item(self, item: protocol.Item) -> Seen | protocol.Outcome:
        """A request that was taken, or what became of it at once."""
        kind = self._messages.get(item.name)
        try:
            if kind is None:
                raise Unhandled(f"{self.root.address} has no message {item.name!r}.")
            message = self.read(kind, item.value)
            if not item.ask:
                self.tell(message, protocol.Meta(id=item.id, entity=item.entity))
                return protocol.Outcome()
            seen = self._window.get(item.id)
            if seen is not None and (seen.kept or not self._idempotent):
                return seen
            self.check(message, item.entity)
            if not isinstance(message, Request) or item.id is None:
                raise Invalid(f"{item.name!r} is no request with an id, so that it can't be asked.")
            return self.take(message, item.id, item.entity)
        except GoatherdError as error:
            return _refused(error)

    def outcomes(
        self, items: Sequence[protocol.Item], taken: Sequence[Seen | protocol.Outcome]
    ) -> list[protocol.Outcome]:
        """What became of each. Answers that are too large together come later, as those of slow requests."""
        outcomes, room = [], MOST_BYTES
        for item, one in zip(items, taken, strict=True):
            outcome = self.outcome(item, one)
            size = len(to_json(outcome.value))
            if isinstance(one, Seen) and not one.open and size > room and room < MOST_BYTES:
                self._window.put_off(one)
                outcome, room = protocol.Outcome(slow=True), 0
            outcomes.append(outcome)
            room -= size
        return outcomes

    def outcome(
        self, item: protocol.Item | protocol.Ticket, taken: Seen | protocol.Outcome
    ) -> protocol.Outcome:
        if isinstance(taken, protocol.Outcome):
            return taken
        if taken.open:
            taken.awaited = True
            return protocol.Outcome(slow=True)
        if taken.error is not None:
            return _refused(taken.error)
        if not taken.kept:
            return _refused(AlreadyApplied("It was applied before, and its answer is not kept any more."))
        kind = self._messages.get(item.name)
        if kind is None:
            return _refused(Unhandled(f"{self.root.address} has no message {item.name!r}."))
        try:
            return protocol.Outcome(value=_written(kind, taken.value))
        except ActorFailed as error:
            return _refused(error)

    async def collect(self, collection: protocol.Collection) -> list[protocol.Outcome]:
        """The outcomes of what was taken; waits for the first, unless some are there already."""
        _wake(self._collecting.pop(collection.by, None))
        seen = [self._window.get(ticket.id) for ticket in collection.tickets]
        if all(one is not None and one.open for one in seen):
            waiting = self._collecting[collection.by] = asyncio.get_running_loop().create_future()
            for ticket in collection.tickets:
                self._collected[ticket.id] = waiting
            await waiting
        outcomes, room = [], MOST_BYTES
        for ticket in collection.tickets:
            outcomes.append(self._collected_outcome(ticket) if room > 0 else protocol.Outcome(slow=True))
            room -= len(to_json(outcomes[-1].value))
        return outcomes

    def _collected_outcome(self, ticket: protocol.Ticket) -> protocol.Outcome:
        seen = self._window.get(ticket.id)
        if seen is None:
            return _refused(AlreadyApplied("It was taken so long ago that its answer is not kept any more."))
        outcome = self.outcome(ticket, seen)
        if not outcome.slow:
            self._window.collected(seen)
        return outcome

    def _promise(self, seen: Seen, address: str | None) -> Any:
        def done(value: Any, error: GoatherdError | None) -> None:
            self._window.answer(seen, value, error)
            _wake(self._collected.pop(seen.id, None))
            for future in self._waiting.pop(seen.id, ()):
                if future.done():
                    continue
                if error is None:
                    future.set_result(value)
                else:
                    future.set_exception(as_failure(error))

        promise = self._runtime.promise(done, address=address)
        seen.open, seen.promise = True, promise.address
        return promise


def _wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)


def as_failure(error: BaseException) -> ApplicationError:
    """As `failure`; of an error that is none of ours, its kind is told."""
    if isinstance(error, GoatherdError):
        return failure(error)
    return ApplicationError(f"{type(error).__name__}: {error}", type="actor-failed", non_retryable=True)


def written_answer(kind: type[Any], value: Any) -> Any:
    """An answer as JSON. Raises that it can't be, as Temporal carries it."""
    try:
        return _written(kind, value)
    except ActorFailed as error:
        raise failure(error) from error


def _written(kind: type[Any], value: Any) -> Any:
    try:
        return adapter(answer_type(kind)).dump_python(value, mode="json")
    except Exception as error:
        # Of an actor that answers what it did not say it would: it must not be tried for ever.
        raise ActorFailed(f"It was applied, and its answer can't be written: {error}") from error


def _refused(error: GoatherdError) -> protocol.Outcome:
    return protocol.Outcome(code=error.code, message=error.message, pointer=error.pointer)


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
