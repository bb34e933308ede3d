"""`Environment` inside of a workflow: its clock, its luck, its timers, and the other workflows."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING, Any

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError

from goatherd.actors._activity import Activity, PutOff
from goatherd.actors._environment import DeadLetter, Work
from goatherd.actors._errors import ActorStopped
from goatherd.actors._message import display
from goatherd.actors._ref import Ref
from goatherd.actors._wire import adapter, write, write_error
from goatherd.actors.durable import _protocol as protocol
from goatherd.actors.durable._journal_activities import JournalCall, JournalCalls
from goatherd.actors.durable._outbox import Outbox
from goatherd.errors import GoatherdError, from_code

if TYPE_CHECKING:
    from goatherd.actors.durable._host import Host

Done = Callable[[Any, BaseException | None], None]


class WorkflowEnvironment:
    """One a workflow. All alarms share one durable timer."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._alarm: float | None = None
        self._timer: asyncio.Task[None] | None = None
        self._timer_at = 0.0
        self._outbox = Outbox()
        self.journal = JournalCalls(host) if host.keeps_journal else None

    @property
    def logger(self) -> logging.Logger | logging.LoggerAdapter[Any]:
        return workflow.logger

    @property
    def random(self) -> Random:
        return workflow.random()

    def now(self) -> float:
        return workflow.time()

    def wake(self) -> None:
        self._host.wake()

    # -- timers

    def alarm(self, when: float | None) -> None:
        """Only notes it: `set_timer` follows when the actors have had their turns."""
        self._alarm = when

    def set_timer(self) -> None:
        """A timer that would ring too early is left, and set anew when it does: to cancel it and start
        another each time that a deadline moves on would cost two events each."""
        when = self._alarm
        if self._timer is not None:
            if when is not None and self._timer_at <= when:
                return
            self._timer.cancel()
            self._timer = None
        if when is not None:
            self._timer_at = when
            self._timer = asyncio.create_task(self._ring_at(when))

    async def _ring_at(self, when: float) -> None:
        await workflow.sleep(timedelta(seconds=max(when - self.now(), 0.0)), summary="next deadline")
        self._timer = None
        if self._alarm is not None and self._alarm <= self.now():
            self._alarm = None
            self._host.ring()
        else:
            self.set_timer()

    # -- work

    def run(self, work: Awaitable[Any], done: Done) -> Work:
        if isinstance(work, Activity):
            of_journal = isinstance(work.argument, JournalCall)
            if self._host.is_closing if of_journal else self._host.is_moving:
                return PutOff(work)
            future: asyncio.Future[Any] = _start(work)
        else:
            future = asyncio.ensure_future(work)

        def finished(future: asyncio.Future[Any]) -> None:
            if future.cancelled():
                done(None, asyncio.CancelledError())
            elif (error := future.exception()) is not None:
                done(None, _unwrapped(error))
            else:
                done(future.result(), None)

        future.add_done_callback(finished)
        return future

    # -- others

    def dead_letter(self, letter: DeadLetter) -> None:
        workflow.logger.info(
            "dead letter %s to %s: %s", display(letter.message), letter.recipient, letter.reason
        )

    def remote(self, address: str) -> Ref[Any] | None:
        return RemoteRef(address, self)

    def start_child(self, kind: Any, child_id: str, start: Any) -> Ref[Any]:
        return self._host.start_child(kind, child_id, start)

    def watch(self, watched: Ref[Any], watcher: str) -> None:
        watching = protocol.Watching(watched=watched.address, watcher=watcher)
        self.signal(watched.address, protocol.WATCH, [watching], gone=lambda: self._host.terminated(watching))

    def unwatch(self, watched: Ref[Any], watcher: str) -> None:
        watching = protocol.Watching(watched=watched.address, watcher=watcher)
        self.signal(watched.address, protocol.UNWATCH, [watching])

    def tell_terminated(self, watched: str, watcher: str) -> None:
        self.signal(watcher, protocol.TERMINATED, [protocol.Watching(watched=watched, watcher=watcher)])

    def await_start(self, child_id: str, started: asyncio.Future[Any]) -> None:
        """What is sent to a child that is being started waits for that."""
        self._outbox.await_start(child_id, started)

    def signal(
        self, address: str, name: str, inputs: list[Any], *, gone: Callable[[], None] | None = None
    ) -> None:
        """Sends a signal to the workflow of an address; `gone` is called if there is none that runs."""
        self._outbox.send(workflow_id(address), name, inputs, gone=gone, shard=shard_type(address))

    @property
    def is_sending(self) -> bool:
        """Whether Temporal has not yet taken all that was sent: a run must not end before."""
        return not self._outbox.is_empty


class RemoteRef(Ref[Any]):
    """An actor of another workflow. What is sent there is a signal."""

    __slots__ = ("_environment",)

    def __init__(self, address: str, environment: WorkflowEnvironment) -> None:
        super().__init__(address)
        self._environment = environment

    def tell(self, message: Any) -> None:
        self.send(message, None)

    def send(self, message: Any, reply_to: Ref[Any] | None) -> None:
        asker = None if reply_to is None else reply_to.address
        inputs: list[Any]
        if "~" in self.address.rpartition("/")[2]:
            name, inputs = protocol.ANSWER, [protocol.Envelope(to=self.address, message=write(message))]
        elif "/" in self.address:
            envelope = protocol.Envelope(to=self.address, message=write(message), reply_to=asker)
            name, inputs = protocol.DELIVER, [envelope]
        else:
            name, inputs = (
                type(message).__name__,
                [adapter(type(message)).dump_python(message, mode="json"), protocol.Meta(reply_to=asker)],
            )

        def gone() -> None:
            self._environment.dead_letter(DeadLetter(message, self.address, "stopped"))
            if reply_to is not None:
                reply_to.fail(ActorStopped(f"{self.address} is not running."))

        self._environment.signal(self.address, name, inputs, gone=gone)

    def fail(self, error: GoatherdError) -> None:
        envelope = protocol.Envelope(to=self.address, error=write_error(error))
        self._environment.signal(self.address, protocol.ANSWER, [envelope])


def workflow_id(address: str) -> str:
    """Of the workflow that an actor, or one of its adapters, lives in."""
    return address.partition("/")[0].partition("~")[0]


def shard_type(address: str) -> str | None:
    """The workflow type of the shard that a sharded entity lives in; None: it is another's address."""
    shard, _, entity = address.partition("/")
    kind, sign, number = shard.rpartition("-shard-")
    is_entity = bool(sign and number.isdigit() and entity) and not any(one in entity for one in "/#~")
    return f"{kind}Shard" if is_entity else None


def _start(call: Activity[Any]) -> asyncio.Future[Any]:
    options = call.options
    cancellation = (
        workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED
        if options.wait_cancel
        else workflow.ActivityCancellationType.TRY_CANCEL
    )
    return workflow.start_activity(
        call.function,
        args=[call.argument],
        task_queue=options.queue,
        start_to_close_timeout=timedelta(seconds=options.timeout_s),
        heartbeat_timeout=None if options.heartbeat_s is None else timedelta(seconds=options.heartbeat_s),
        retry_policy=RetryPolicy(
            initial_interval=timedelta(seconds=options.backoff_s),
            maximum_interval=timedelta(seconds=options.max_backoff_s),
            maximum_attempts=options.attempts,
        ),
        cancellation_type=cancellation,
        summary=options.summary,
    )


def _unwrapped(error: BaseException) -> BaseException:
    """An error of ours that an activity raised, as it was; others stay what Temporal makes of them."""
    cause = error.cause if isinstance(error, ActivityError) else error
    if isinstance(cause, ApplicationError) and cause.type is not None:
        told = from_code(cause.type, cause.message)
        if type(told) is not GoatherdError:
            return told
    return error
