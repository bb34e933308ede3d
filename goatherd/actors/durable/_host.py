"""The inside of a durable actor's workflow: the runtime, and what connects it with Temporal.

A run begins with the tree that the last one handed on, and ends when the root actor has stopped, or when its
history is long: then all goes on in the next run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from temporalio import workflow
from temporalio.common import RawValue

from goatherd.actors import _snapshot
from goatherd.actors._activity import PutOff
from goatherd.actors._behavior import Behavior, name_of
from goatherd.actors._cell import Cell
from goatherd.actors._errors import Unhandled
from goatherd.actors._mail import Notice, Piped
from goatherd.actors._ref import Ref, resolving
from goatherd.actors._runtime import Runtime
from goatherd.actors._signals import CANCEL_REQUESTED
from goatherd.actors._wire import read, read_error
from goatherd.actors.durable import _protocol as protocol
from goatherd.actors.durable._asks import Asks, Moved, as_failure, written_answer
from goatherd.actors.durable._environment import WorkflowEnvironment
from goatherd.actors.durable._journal_activities import is_of_journal
from goatherd.actors.durable._luggage import Luggage, checked_answer, checked_outcomes, stuck
from goatherd.actors.durable._window import Window
from goatherd.actors.persistence._running import as_its_user_sees, resume
from goatherd.errors import GoatherdError, Invalid

if TYPE_CHECKING:
    from goatherd.actors.durable._definition import DurableActor
    from goatherd.actors.durable._entities import Entities

MOST_UPDATES = 1_900
"""Temporal refuses more than 2,000 a run; the rest is for those that are on their way."""
_KINSHIP = "~parent"
"""Instead of an actor's address: the system itself watches a child."""


class Host:
    """One a run of a workflow. Built before the first message is handled."""

    def __init__(
        self,
        actor: DurableActor[Any],
        start: Any,
        written: Any,
        entities: Callable[[Runtime], Entities] | None = None,
    ) -> None:
        """`entities`: of a shard, those that its root has."""
        self._actor = actor
        self._start = actor.start_type.model_validate({} if start is None else start)
        carried = None if written is None else protocol.Carried.model_validate(written)
        self._awake = False
        self._broken: BaseException | None = None
        self._updates = 0
        # Of those, the ones with something new: who asks again for an answer does not wear out a run, which
        # would have him ask again.
        self._taken = 0
        self._most_asks = actor.asks_per_run(self._start)
        # Whether a child itself tells that it has stopped; else this run learns it from Temporal.
        self._children: dict[str, bool] = {}
        self._ended: Cell | None = None
        self.is_moving = False
        self._luggage = Luggage()
        self.environment = WorkflowEnvironment(self)
        self.runtime = Runtime(workflow.info().workflow_id, self.environment)
        self.runtime.on_top_stopped = self._root_stopped
        self._window = Window() if carried is None else Window.read(carried.seen)
        self._asks = Asks(self.runtime, actor.messages, self._window, idempotent=actor.idempotent)
        self._asks.entities = self.runtime.absent = None if entities is None else entities(self.runtime)
        with resolving(self.runtime.resolve):
            if carried is None:
                if entities is not None:
                    # Its entities come back from a shard that was before, and may owe answers to its askers,
                    # who are gone: no new asker's address may be one of theirs.
                    uid, _, timers = self.runtime.counters
                    self.runtime.counters = [uid, int(workflow.time() * 1e6), timers]
                self.runtime.spawn(actor.behavior(self._start), "", address=self.runtime.host)
            else:
                self._children = dict.fromkeys(carried.children, True)
                _snapshot.restore(self.runtime, carried.tree)
                resume(self.runtime)
        self._root = self._asks.root = self.runtime.cell_at(self.runtime.host)

    # -- the run

    async def live(self) -> Any:
        """Until the root actor has stopped, or the run is worn out and continues as new."""
        # What came due while the last run ended: another timer might not ring before this run is over, too.
        self.ring()
        cancelled = False
        while True:
            try:
                await workflow.wait_condition(self._is_over)
                break
            except asyncio.CancelledError:
                cancelled = True
                self._root.deliver(Notice(CANCEL_REQUESTED))
                self.drain()
        if self._broken is not None:
            raise self._broken
        if self._ended is None:
            workflow.continue_as_new(args=[self._start, self._carried()])
        if cancelled:
            raise asyncio.CancelledError
        if self._ended.failure is not None:
            raise as_failure(self._ended.failure)
        return self._actor.result(as_its_user_sees(self._ended.behavior))

    def _is_over(self) -> bool:
        if self._broken is not None:
            return True
        if self._ended is None:
            if not self.is_worn_out or not self._luggage.is_due(
                self.runtime.processed, is_full=self._is_full
            ):
                return False
            self._begin_move()
            if self._has_work:
                return False
        if self.environment.is_sending:
            return False
        if self._ended is None:
            if not self._luggage.fits(self._carried, self.runtime.processed):
                self._stay()
                return False
            # Last of all: whoever is let go asks again at once, and is to find the next run.
            self._asks.let_go()
        return workflow.all_handlers_finished()

    def _begin_move(self) -> None:
        """From now on no activity is begun; what is under way is waited for."""
        if self.is_moving:
            return
        self.is_moving = True
        for child, tells in self._children.items():
            if not tells:
                self.environment.signal(
                    child, protocol.WATCH, [self._kinship(child)], gone=partial(self._child_ended, child)
                )
                self._children[child] = True

    def _stay(self) -> None:
        """The run goes on after all, with what was put off."""
        self.is_moving = False
        for cell in list(self.runtime.cells()):
            for number, piped in list(cell.work.items()):
                if isinstance(piped.handle, PutOff):
                    del cell.work[number]
                    started = cell.pipe(piped.work, piped.ok, piped.err, key=piped.key)
                    piped.handle.on_cancel = started.cancel
        resume(self.runtime)

    def _kinship(self, child: str) -> protocol.Watching:
        """A child's end is not told by Temporal to any later run than the one that has started it."""
        return protocol.Watching(watched=child, watcher=f"{self.runtime.host}/{_KINSHIP}")

    @property
    def _has_work(self) -> bool:
        return any(True for _ in self._under_way())

    def _under_way(self) -> Iterator[Piped]:
        return (
            piped
            for cell in self.runtime.cells()
            for piped in cell.work.values()
            if not isinstance(piped.handle, PutOff)
        )

    @property
    def keeps_journal(self) -> bool:
        return self._actor.journal

    @property
    def is_closing(self) -> bool:
        """Whether the run is over as soon as the journal has answered: it is to be asked no more."""
        return self.is_moving and all(is_of_journal(piped) for piped in self._under_way())

    @property
    def _is_full(self) -> bool:
        """Whether Temporal would soon refuse more updates of this run."""
        return self._updates >= MOST_UPDATES

    @property
    def is_worn_out(self) -> bool:
        return (
            self._taken >= self._most_asks or self._is_full or workflow.info().is_continue_as_new_suggested()
        )

    def _carried(self) -> protocol.Carried:
        return protocol.Carried(
            tree=_snapshot.dump(self.runtime), seen=self._window.written(), children=list(self._children)
        )

    @property
    def root(self) -> Behavior[Any]:
        """How the root actor behaves now; after it has stopped, how it did last."""
        return as_its_user_sees(self._root.behavior)

    def wake(self) -> None:
        if not self._awake:
            self._awake = True
            asyncio.get_running_loop().call_soon(self.drain)

    def drain(self) -> None:
        """Has all actors handle what they have."""
        self._awake = False
        try:
            self._turns()
            self.environment.set_timer()
            self._show()
        except Exception as error:
            # A bug of the runtime itself. A callback's error is only logged: `live` has to raise it.
            self._broken = error
            return

    def _show(self) -> None:
        try:
            self._actor.show(self.root)
        except Exception:
            # What people see of it must not keep it from going on.
            workflow.logger.exception("can't show how the actor is")

    def _turns(self) -> None:
        with resolving(self.runtime.resolve):
            self.runtime.drain()

    def ring(self) -> None:
        self.runtime.ring()
        self.drain()

    def _root_stopped(self, cell: Cell) -> None:
        if cell.address != self.runtime.host:
            return
        self._ended = cell
        self._asks.stopped()
        for child in self._children:
            self.environment.signal(child, protocol.STOP, [])

    # -- messages from outside

    def check(self, kind: type[Any], value: Any, entity: str | None = None) -> None:
        """Raises why a request is not taken. It leaves no event then."""
        update = workflow.current_update_info()
        if update is not None and self._window.get(update.id) is not None:
            return  # It was taken once, and has its answer, whatever would be said of it now.
        try:
            self._check_room()
            self._asks.check(self._asks.read(kind, value), entity)
        except Exception as error:
            raise as_failure(error) from error

    def check_delivery(self) -> None:
        """As `check`, of several: each of them has its own refusal, but for a run that takes no more."""
        try:
            self._check_room()
        except GoatherdError as error:
            raise as_failure(error) from error

    def _check_room(self) -> None:
        if self._is_full:
            # What has come since it was weighed may have changed that: whoever asks again will see.
            if not self._luggage.is_due(self.runtime.processed, is_full=True):
                raise stuck(self.runtime.host)
            raise Moved("The actor is about to go on to its next run. Ask again in a moment.")

    async def asked(self, kind: type[Any], value: Any, entity: str | None = None) -> Any:
        """An update of one request. Its id is the message's."""
        update = workflow.current_update_info()
        assert update is not None
        self._updates += 1
        self._window.trim()
        if self._window.get(update.id) is None:
            self._taken += 1
        seen = self._asks.take(self._asks.read(kind, value), update.id, entity)
        self.drain()
        return checked_answer(written_answer(kind, await self._asks.answer(seen)))

    async def deliver(self, delivery: protocol.Delivery) -> protocol.Outcomes:
        """An update of several messages, of which each has its own outcome."""
        self._updates += 1
        self._window.trim()
        self._taken += 1
        taken = []
        for item in delivery.items:
            # One after the other: whether the next one is taken may depend on what this one does.
            taken.append(self._asks.take_item(item))
            self._turns()
        self.drain()
        return checked_outcomes(self._asks.outcomes(delivery.items, taken))

    async def collect(self, collection: protocol.Collection) -> protocol.Outcomes:
        """An update of somebody who was told that answers come later."""
        self._updates += 1
        return checked_outcomes(await self._asks.collect(collection))

    def told(self, kind: type[Any], value: Any, meta: Any = None) -> None:
        """A signal. One that does not fit is dropped: there is nobody to tell."""
        try:
            message = self._asks.read(kind, value)
            told = None if meta is None else protocol.Meta.model_validate(meta)
            self._asks.tell(message, told)
        except (GoatherdError, ValidationError) as error:
            workflow.logger.warning("dropped a signal that does not fit", extra={"reason": str(error)})
            return
        self.drain()

    def signalled(self, signal: protocol.Signal) -> None:
        """One of several signals that came as one. One that does not fit is dropped: the others count."""
        try:
            self._signalled(signal)
        except (ValidationError, LookupError) as error:
            workflow.logger.warning("dropped a signal that does not fit", extra={"reason": str(error)})

    def _signalled(self, signal: protocol.Signal) -> None:
        inputs = signal.inputs
        match signal.name:
            case protocol.DELIVER | protocol.ANSWER:
                self.delivered(protocol.Envelope.model_validate(inputs[0]))
            case protocol.WATCH:
                self.watched(protocol.Watching.model_validate(inputs[0]))
            case protocol.UNWATCH:
                self.unwatched(protocol.Watching.model_validate(inputs[0]))
            case protocol.TERMINATED:
                self.terminated(protocol.Watching.model_validate(inputs[0]))
            case protocol.STOP:
                self.stop()
            case name if (kind := self._actor.messages.get(name)) is not None:
                self.told(kind, *inputs[:2])
            case name:
                self._drop(name, inputs[1] if len(inputs) > 1 else None)

    def stray(self, name: str, inputs: Sequence[RawValue]) -> None:
        """A signal of a name that the actor's type does not have."""
        values = [workflow.payload_converter().from_payload(one.payload) for one in inputs]
        self._drop(name, values[1] if len(values) > 1 else None)

    def _drop(self, name: str, meta: Any) -> None:
        workflow.logger.warning("dropped a signal that is none of ours", extra={"signal": name})
        try:
            asker = protocol.Meta.model_validate(meta or {}).reply_to
        except ValidationError:
            return
        if asker is not None:
            error = Unhandled(f"{self.runtime.host} has no message {name!r}.")
            self.runtime.resolve(asker).fail(error)

    def delivered(self, envelope: protocol.Envelope) -> None:
        """A message to an actor inside of the tree, or the answer to its ask."""
        to = self.runtime.resolve(envelope.to)
        reply_to = None if envelope.reply_to is None else self.runtime.resolve(envelope.reply_to)
        try:
            if envelope.error is not None:
                to.fail(read_error(envelope.error))
            else:
                with resolving(self.runtime.resolve):
                    message = read(envelope.message)
                to.send(message, reply_to)
        except Exception as error:
            # A signal can't be refused, and must not be tried for ever. Who waits is told: he who asked, or
            # he whose answer this was.
            workflow.logger.warning("can't read what came for %s", envelope.to, extra={"reason": str(error)})
            (reply_to or to).fail(Invalid(f"What was sent to {envelope.to} can't be read there."))
        self.drain()

    # -- watching, children

    def watched(self, watching: protocol.Watching) -> None:
        """An actor elsewhere watches one of ours."""
        cell = self.runtime.owner(self.runtime.resolve(watching.watched)) or self.runtime.enter(
            watching.watched
        )
        if cell is None:
            self.environment.tell_terminated(watching.watched, watching.watcher)
        else:
            cell.watchers[watching.watcher] = self.runtime.resolve(watching.watcher)

    def unwatched(self, watching: protocol.Watching) -> None:
        cell = self.runtime.owner(self.runtime.resolve(watching.watched))
        if cell is not None:
            cell.watchers.pop(watching.watcher, None)

    def terminated(self, watching: protocol.Watching) -> None:
        """An actor elsewhere, which one of ours watches or has started, has stopped."""
        if watching.watched in self._children and watching.watcher.endswith(f"/{_KINSHIP}"):
            self._child_ended(watching.watched)
        else:
            self.runtime.terminated(watching.watched, watching.watcher)
        self.drain()

    def start_child(self, kind: type[DurableActor[Any]], child_id: str, start: Any) -> Ref[Any]:
        """Starts a durable actor that stops when this one does. See `Context.start`."""
        if child_id in self._children:
            # To start it a second time would fail, and so say of one that lives that it has stopped.
            return self.runtime.resolve(child_id)
        self._children[child_id] = False
        starting = asyncio.ensure_future(
            workflow.start_child_workflow(
                kind.actor_type,
                args=[start],
                id=child_id,
                # Else it would be terminated when this run continues as new.
                parent_close_policy=workflow.ParentClosePolicy.ABANDON,
            )
        )
        self.environment.await_start(child_id, starting)
        starting.add_done_callback(lambda started: self._child_started(child_id, started))
        return self.runtime.resolve(child_id)

    def _child_started(self, child_id: str, started: asyncio.Future[Any]) -> None:
        if started.cancelled() or started.exception() is not None:
            workflow.logger.warning("a child could not be started", extra={"child": child_id})
            self._child_ended(child_id)
        else:
            started.result().add_done_callback(lambda _: self._child_ended(child_id))

    def _child_ended(self, child_id: str) -> None:
        self._children.pop(child_id, None)
        ref = self.runtime.resolve(child_id)
        for cell in list(self.runtime.cells()):
            cell.watched_stopped(ref, None)
        self.wake()

    def stop(self) -> None:
        self._root.order_stop()
        self.drain()

    def view(self) -> protocol.View:
        return protocol.View(
            actors=[
                {
                    "address": cell.address,
                    "behavior": _name(cell.behavior),
                    "state": cell.state.name.lower(),
                    "mailbox": len(cell.mailbox),
                    "stash": len(cell.stash),
                    "timers": list(cell.timers),
                    "work": len(cell.work),
                }
                for cell in self.runtime.cells()
            ],
            children=list(self._children),
            watchers=[
                protocol.Watching(watched=cell.address, watcher=watcher)
                for cell in self.runtime.cells()
                for watcher in cell.watchers
                if not self.runtime.is_local(self.runtime.resolve(watcher))
            ],
            asks=len(self._window.open),
            messages=self.runtime.processed,
        )


def _name(behavior: Behavior[Any]) -> str:
    seen = as_its_user_sees(behavior)
    return name_of(seen) or type(seen).__name__
