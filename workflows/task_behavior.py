"""The behavior of a task's actor: what it is asked, and how the task as a whole stands.

What holds between subtasks and leases is in `task_book.py`. Inputs and results don't come by here when they
are large: they are the store's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from goatherd.actors import (
    Behavior,
    CancelRequested,
    Context,
    Signal,
    behavior,
    message,
    stopped,
)
from goatherd.contracts.ids import assignment_id, is_task_id
from goatherd.contracts.model import Timestamp
from goatherd.contracts.task import (
    ENDINGS,
    Counts,
    Task,
    TaskEventType,
    TaskStatus,
    TaskSummary,
)
from goatherd.contracts.task_messages import (
    Added,
    AddSubtasks,
    Asked,
    Beaten,
    CancelTask,
    Changed,
    Heartbeat,
    PauseTask,
    Reported,
    ReportStatus,
    Requeued,
    RequeueSubtasks,
    ResumeTask,
    StartTask,
    Taken,
    TakeSubtasks,
    UpdateSubtask,
)
from goatherd.errors import GoatherdError, Invalid, TaskClosed, TooManyRequests
from workflows.task_adding import info_of, places_of, refuse_cycles
from workflows.task_book import TaskBook
from workflows.task_callback import NotTold, TaskCallbacks, TellAgain, Told
from workflows.task_flush import Quiet, TaskFlushing, Written
from workflows.task_items import Items
from workflows.task_log import TaskLog, moment
from workflows.task_subtasks import Rules

MOST_SUBTASKS = 1_000_000
MOST_UNFLUSHED = 10_000
"""Events that nobody has written yet, after which nothing more is begun."""
MOST_REQUEUED = 200
_REMEMBERED = 1_000
_DUE = "due"
_LATER = TaskSummary(version=0, status=TaskStatus.PENDING, counts=Counts())
"""In an answer until all is said that follows from the request."""


@message
class Due:
    """A lease, a backoff, the deadline or the task's time to linger ends about now."""


@dataclass(frozen=True)
class Placed:
    """New subtasks, as they were given numbers before."""

    first: int
    count: int
    seq: int
    created_at: float


Asks = (
    AddSubtasks | TakeSubtasks | ReportStatus | Heartbeat | UpdateSubtask | PauseTask | ResumeTask
    | RequeueSubtasks | CancelTask
)  # fmt: skip
Messages = Asks | Written | Quiet | Due | Told | NotTold | TellAgain


@behavior("task")
class TaskBehavior(Behavior[Messages]):
    """One task. `closed`: it takes nothing any more. `ended_at`: when the last subtask was done. `fence`: the
    last lease's. `added`, `takes`: requests that were done, the last thousand, so that they are not again."""

    start: StartTask
    log: TaskLog
    items: Items
    flushing: TaskFlushing
    salt: str = ""
    fence: int = 0
    created_at: Timestamp | None = None
    status: TaskStatus = TaskStatus.PENDING
    paused: bool = False
    closing: str | None = None
    closed: bool = False
    reason: str | None = None
    ended_at: float | None = None
    closed_at: float | None = None
    callbacks: TaskCallbacks = field(default_factory=TaskCallbacks)
    added: dict[str, Placed] = field(default_factory=dict)
    takes: dict[str, None] = field(default_factory=dict)

    # These follow from the fields, and are none themselves.
    _book: ClassVar[TaskBook | None] = None
    _due: ClassVar[float | None] = None

    @property
    def book(self) -> TaskBook:
        book = self._book
        if book is None:
            start = self.start
            rules = Rules(
                salt=self.salt,
                lease_s=start.lease_s,
                max_attempts=start.max_attempts,
                backoff=start.backoff,
                overlap=start.overlap,
                consensus=start.consensus,
                deadline=None if start.deadline is None else start.deadline.timestamp(),
                priority=start.priority,
            )
            book = TaskBook(rules, self.items, self.log, self.fence)
            book.closing = self.closing
            self._book = book  # type: ignore[misc]
        return book

    @property
    def summary(self) -> TaskSummary:
        return TaskSummary(
            version=self.log.seq,
            status=self.status,
            counts=self.book.summary(),
            reason=self.reason,
            ended_at=None if self.ended_at is None else moment(self.ended_at),
            closed_at=None if self.closed_at is None else moment(self.closed_at),
        )

    # -- what happens to it

    def on_start(self, ctx: Context[Messages]) -> Behavior[Messages] | None:
        if not is_task_id(self.log.task):
            raise Invalid("The workflow id of a Task must be a task id: task_ and a ULID.")
        self.salt = f"{ctx.random.getrandbits(128):032x}"
        self.created_at = self.start.created_at or moment(ctx.now())
        # By its own time, not by the clock: whoever starts it can tell what its first events are.
        made_at = self.created_at.timestamp()
        self.log.emit(TaskEventType.TASK_CREATED, made_at, data={"title": self.start.title})
        if self.start.first is not None:
            self._add(self.start.first, made_at)
        if not self.start.stored:
            self.flushing.upto = self.log.seq
        return self._go_on(ctx)

    def on_signal(self, ctx: Context[Messages], signal: Signal) -> Behavior[Messages] | None:
        if isinstance(signal, CancelRequested):
            self._begin(ctx)
            if not self.closed:
                self._cancel(ctx, "cancelled")
            self._settle(ctx)
            self.flushing.upto = self.log.seq
            return self._go_on(ctx)
        return super().on_signal(ctx, signal)

    def receive(self, ctx: Context[Messages], message: Messages) -> Behavior[Messages] | None:
        before = self.log.seq
        self._begin(ctx)
        if isinstance(message, Asked):
            self._asked(ctx, message, before)
        else:
            if isinstance(message, Written):
                self.flushing.done(self.log)
            elif isinstance(message, Told | NotTold):
                self.callbacks.tried(ctx, message)
            self._settle(ctx)
            if self.log.seq > before:
                self.flushing.upto = self.log.seq  # Nobody has asked for this: nobody else writes it.
        return self._go_on(ctx)

    def check(self, message: Messages) -> None:
        """What is refused before it is taken: it leaves no history."""
        if not isinstance(message, Asked):
            return
        if self.closed and not isinstance(message, CancelTask):
            raise TaskClosed(f"The task is closed: {self.status.value}. Make a new one.")
        if isinstance(message, ReportStatus | Heartbeat | UpdateSubtask):
            self.book.item(message.subtask)
        elif self.closing is not None and isinstance(
            message, AddSubtasks | PauseTask | ResumeTask | RequeueSubtasks
        ):
            raise TaskClosed("The task is being cancelled, and takes nothing more.")
        if len(self.log) >= MOST_UNFLUSHED and isinstance(
            message, AddSubtasks | RequeueSubtasks | TakeSubtasks
        ):
            raise TooManyRequests("The store is behind with this task. Try again in a moment.")
        if isinstance(message, AddSubtasks):
            count = len(message.subtasks) or message.count
            if len(self.items) + count > MOST_SUBTASKS:
                raise Invalid(f"A task has at most {MOST_SUBTASKS} subtasks.")

    def _asked(self, ctx: Context[Messages], order: Asked, before: int) -> None:
        self.log.confirm(order.acks)
        if order.flusher:
            self.flushing.heard_at = ctx.now()
        self._settle(ctx)  # What was due by now came first: the deadline, the end of the last lease.
        try:
            if self.closing is not None or self.closed:
                # It may have been taken when that was not so.
                self.check(order)  # type: ignore[arg-type]
            answer = self._answer(ctx, order)
        except GoatherdError as error:
            self._settle(ctx)
            self.flushing.upto = self.log.seq
            ctx.refuse(order, error)  # type: ignore[arg-type]
            return
        self._settle(ctx)
        events, complete = self.log.since(before)
        if not (complete and order.flusher):
            self.flushing.upto = self.log.seq
        ctx.reply(order, answer.model_copy(update={"events": events, "task": self.summary}))  # type: ignore[arg-type]

    def _answer(self, ctx: Context[Messages], order: Asked) -> Changed:
        """What the request is answered, but for the events and how the task stands after them."""
        match order:
            case TakeSubtasks():
                return self._take(order)
            case ReportStatus():
                outcome = self.book.report(order)
                return Reported(
                    task=_LATER,
                    subtask=order.subtask,
                    status=outcome.status,
                    assignment=assignment_id(self.log.task, outcome.fence) if outcome.fence else None,
                    attempt=outcome.attempt,
                    outcome=outcome.outcome,
                )
            case Heartbeat():
                return self._beat(order, ctx.now())
            case AddSubtasks():
                return self._add(order, ctx.now())
            case UpdateSubtask():
                item = self.book.item(order.subtask)
                self.book.change(item, order.priority, order.requires, order.info, order.info_version)
            case PauseTask() | ResumeTask():
                self._pause(ctx, isinstance(order, PauseTask))
            case RequeueSubtasks():
                return Requeued(task=_LATER, requeued=self._requeue(order))
            case CancelTask():
                self._cancel(ctx, order.reason)
        return Changed(task=_LATER)

    def _begin(self, ctx: Context[Messages]) -> None:
        self.book.advance(ctx.now())

    # -- taking and working

    def _take(self, order: TakeSubtasks) -> Taken:
        if order.id is not None:
            # What is held is known for as long as it is; `takes` is for those whose leases have all ended.
            held = self.book.taken_by(order.id)
            if held or order.id in self.takes:
                return Taken(task=_LATER, assignments=held, available=self.book.available)
        assignments = [] if self.paused or self.closing is not None else self.book.take(order)
        self.fence = self.book.fence
        if order.id is not None and assignments:
            _remember(self.takes, order.id, None)
        # Also to who was given something: others wait, and may know of no time but this one.
        due = None if self.book.available else self.book.next_at()
        return Taken(
            task=_LATER,
            assignments=assignments,
            available=0 if self.paused or self.closing is not None else self.book.available,
            retry_at=None if due is None else moment(due),
        )

    def _beat(self, order: Heartbeat, now: float) -> Beaten:
        if self.closing is not None:
            lease = self.book.held(self.book.item(order.subtask), order.lease_token)
            self.book.tell_cancelled(lease)
            until = now  # It is over by this.
        else:
            until = self.book.beat(order).expires_at
        return Beaten(
            task=_LATER,
            expires_at=moment(until),
            cancel_requested=self.closing is not None,
            paused=self.paused,
            deadline=self.start.deadline,
        )

    # -- adding

    def _add(self, order: AddSubtasks, now: float) -> Added:
        key = order.batch or order.id
        known = self.added.get(key) if key is not None else None
        if known is not None:
            return self._added(known, range(known.first, known.first + known.count), [])
        count = len(order.subtasks) or order.count
        first, seq = len(self.items) + 1, self.log.seq + 1
        places = places_of(order.subtasks, self.book) if order.subtasks else order.places
        refuse_cycles(places, count)
        numbers = self.book.add(places, count)
        data: dict[str, Any] = {"first": first, "count": count}
        if order.subtasks:
            data["subtasks"] = [
                info_of(spec, self.items[number], self.book, seq=seq, now=now)
                for number, spec in zip(numbers, order.subtasks, strict=True)
            ]
        else:
            data["batch"] = order.batch
            ready = [n for n in numbers if self.items[n].depends and not self.items[n].waits_for]
            if ready:
                data["ready"] = ready
        self.log.emit(TaskEventType.SUBTASKS_CREATED, now, data=data)
        hopeless = self.book.cancel_hopeless(numbers)
        placed = Placed(first, count, seq, now)
        if key is not None:
            _remember(self.added, key, placed)
        return self._added(placed, numbers, hopeless)

    def _added(self, placed: Placed, numbers: range, hopeless: list[int]) -> Added:
        blocked = [number for number in numbers if self.items[number].status == "blocked"]
        return Added(
            task=_LATER,
            first=placed.first,
            count=placed.count,
            seq=placed.seq,
            created_at=moment(placed.created_at),
            blocked=blocked,
            cancelled=hopeless,
        )

    # -- the task as a whole

    def _pause(self, ctx: Context[Messages], paused: bool) -> None:
        if paused is not self.paused:
            self.paused = paused
            kind = TaskEventType.TASK_PAUSED if paused else TaskEventType.TASK_RESUMED
            self.log.emit(kind, ctx.now())

    def _requeue(self, order: RequeueSubtasks) -> int:
        """At most so many at once as an answer can tell of."""
        items = (
            self.items if order.subtasks is None else [self.book.item(subtask) for subtask in order.subtasks]
        )
        requeued = 0
        for item in items:
            if item.status in order.statuses and not self.book.hopeless(item):
                self.book.requeue(item)
                requeued += 1
                if requeued == MOST_REQUEUED:
                    break
        return requeued

    def _cancel(self, ctx: Context[Messages], reason: str) -> None:
        if self.closed or self.closing is not None:
            return
        if self._is_done:
            self._close(ctx, reason)
            return
        self.closing = self.book.closing = self.reason = reason
        held = bool(self.book.leases)
        kind = TaskEventType.TASK_CANCELLING if held else TaskEventType.TASK_CANCELLED
        self.book.cancel_waiting(kind, reason)
        self.status = TaskStatus.CANCELLING if held else TaskStatus.CANCELLED

    def _expire(self, ctx: Context[Messages]) -> None:
        self.closing = self.book.closing = self.reason = "deadline"
        self.status = TaskStatus.EXPIRED
        self.book.cancel_waiting(TaskEventType.TASK_EXPIRED, "deadline", held=True)

    @property
    def _is_done(self) -> bool:
        return len(self.items) > 0 and self.book.unfinished == 0

    def _settle(self, ctx: Context[Messages]) -> None:
        """Brings the task's status in line with its subtasks, and tells what has changed."""
        now = ctx.now()
        if self.closed:
            return
        deadline = self.book.rules.deadline
        if self.closing is None and deadline is not None and deadline <= now and not self._is_done:
            self._expire(ctx)
        if self.closing is not None:
            if self.status is TaskStatus.CANCELLING and not self.book.leases:
                self.status = TaskStatus.CANCELLED
                self.log.emit(TaskEventType.TASK_CANCELLED, now, data={"reason": self.closing})
            if self.status is not TaskStatus.CANCELLING:
                self.ended_at = self.ended_at or now
                self.closed, self.closed_at = True, now
                self._tell_ending(ctx, TaskEventType(f"task.{self.status.value}"))
            return
        was, self.status = self.status, self._status()
        if self.status is was:
            pass
        elif self.status in (TaskStatus.COMPLETED, TaskStatus.FAILED):
            self.ended_at = now
            kind = TaskEventType(f"task.{self.status.value}")
            self.log.emit(kind, now)
            self._tell_ending(ctx, kind)
        elif self.ended_at is not None:
            self.ended_at = None
            self.log.emit(TaskEventType.TASK_REOPENED, now)
        if self._lingers_until(now) <= now:
            self._close(ctx, None)

    def _status(self) -> TaskStatus:
        counts = self.book.counts
        if self._is_done:
            return TaskStatus.FAILED if counts["failed"] or counts["dead"] else TaskStatus.COMPLETED
        if self.paused:
            return TaskStatus.PAUSED
        if self.fence:
            return TaskStatus.IN_PROGRESS
        return TaskStatus.PENDING

    def _lingers_until(self, now: float) -> float:
        """When a completed task closes. One that has failed waits for who requeues or deletes."""
        if self.closed or self.status is not TaskStatus.COMPLETED or self.ended_at is None:
            return float("inf")
        return self.ended_at + self.start.linger_s

    def _close(self, ctx: Context[Messages], reason: str | None) -> None:
        self.closed, self.closed_at, self.reason = True, ctx.now(), reason
        self.log.emit(TaskEventType.TASK_CLOSED, ctx.now(), data={"reason": reason})

    def _tell_ending(self, ctx: Context[Messages], kind: TaskEventType) -> None:
        if self.start.callback is None or kind not in ENDINGS:
            return
        self.callbacks.add(self.start, kind, task=self.log.task, summary=self.summary, now=ctx.now())

    # -- what is to be done next

    def _go_on(self, ctx: Context[Messages]) -> Behavior[Messages] | None:
        if self.closed:
            self.flushing.upto = self.log.seq
        self.flushing.go_on(ctx, self.log, document=self._document, summary=self._summary)
        self.callbacks.go_on(ctx, self.start)
        if not self.closed:
            self._set_timer(ctx)
        elif self.flushing.is_done(self.log) and not self.callbacks.calls:
            return stopped
        else:
            ctx.timers.cancel(_DUE)
        return None

    def _document(self) -> Task:
        assert self.created_at is not None
        return self.start.document(self.log.task, now=self.created_at)

    def _summary(self) -> TaskSummary:
        return self.summary

    def _set_timer(self, ctx: Context[Messages]) -> None:
        """One that would ring too early is left, and set anew when it does: most leases end by a report."""
        times = [self.book.next_at(), self._lingers_until(ctx.now())]
        deadline = self.book.rules.deadline
        if deadline is not None and self.closing is None and not self._is_done:
            times.append(deadline)
        due = min(time for time in times if time is not None)
        if due == float("inf"):
            ctx.timers.cancel(_DUE)
            return
        if self._due is None or due < self._due or not ctx.timers.is_active(_DUE):
            ctx.timers.once(_DUE, Due(), max(due - ctx.now(), 0.0))
            self._due = due  # type: ignore[misc]


def _remember(memory: dict[str, Any], key: str, value: Any) -> None:
    memory[key] = value
    if len(memory) > _REMEMBERED:
        del memory[next(iter(memory))]
