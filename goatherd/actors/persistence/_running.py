"""The behavior that an event-sourced actor has while it runs.

```
SETTLING ──▶ RECOVERING ──▶ READY ◀──▶ PERSISTING
 (answers of     │            │             │
  before a       └────────────┴─▶ FAILED ◀──┘
  restart)
```

It does no I/O: the journal's calls are piped to it. Without a journal there is nothing to wait for, and its
own fields are what lasts: they go through continue-as-new, and through a restart. With one they go along too:
a new run does not read the journal again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from goatherd.actors._behavior import Behavior, behavior, same, stopped, unhandled
from goatherd.actors._context import Context
from goatherd.actors._errors import ActorFailed, ActorStopped
from goatherd.actors._mail import Adapted, Piped
from goatherd.actors._ref import Ref
from goatherd.actors._runtime import Runtime
from goatherd.actors._signals import PostStop, PreRestart, Signal
from goatherd.actors._wire import Json, read, read_behavior, write, write_behavior
from goatherd.actors.persistence import _backlog as backlog
from goatherd.actors.persistence import _calls as calls
from goatherd.actors.persistence import _recovery as recovery
from goatherd.actors.persistence import _signals as signals
from goatherd.actors.persistence import _snapshots as snapshots
from goatherd.actors.persistence._effect import Effect, Refuse, Reply, Run, Step, Then, Verdict
from goatherd.actors.persistence._errors import EventsRejected, JournalFailed, RecoveryError
from goatherd.actors.persistence._phase import Phase
from goatherd.errors import Fenced

if TYPE_CHECKING:
    from goatherd.actors.persistence._event_sourced import EventSourced


class Pending(NamedTuple):
    """A command whose events are being written, and what follows when they are."""

    command: Any
    reply_to: Ref[Any] | None
    state: Any
    seq: int
    due: bool
    steps: tuple[Step, ...]


class _Held:
    """Counts as work that is under way: what a command is to do can't be written down until it is done."""

    def cancel(self) -> None:
        """It ends when the answer is handled."""


_HELD = 0
"""Its number among the actor's work, which counts from 1."""


class Resumed:
    """The message that has an actor's first turn come in a new run."""

    __slots__ = ()


_FIELDS = (
    "persistence_id", "writer", "seq", "highest", "kept", "released", "remembered",
    "unsettled", "saving", "owed",
)  # fmt: skip


@behavior("goatherd.event-sourced")
class Running(Behavior[Any]):
    """See the module. `of` is the user's; `state` follows from events 1 to `seq`.

    `unsettled` counts calls of the journal that have not been answered, those of before a restart too: they
    come first, or an event that was still on its way then would be missed by the recovery.
    """

    of: EventSourced[Any, Any, Any]
    state: Any = None
    phase: Phase = Phase.NEW
    remembered: bool = False
    persistence_id: str = ""
    writer: str = ""
    seq: int = 0
    highest: int = 0
    kept: int = 0
    released: bool = False
    unsettled: int = 0
    saving: int | None = None
    owed: bool = False

    # These two are not written down: while there is something pending, the actor can't be; and a new run has
    # its own RecoveryCompleted.
    pending: Pending | None = None
    announced: bool = False

    # -- what the runtime calls

    def on_start(self, ctx: Context[Any]) -> Behavior[Any] | None:
        self.persistence_id = self.of.persistence_id(ctx)
        if ctx.journal is None:
            if self.remembered:
                self.adopt(self.state, self.seq)
            else:
                self.adopt(self.of.empty(), 0)
            return self.recovered(ctx)
        # No other writer has it, also not this actor before a restart; a replay has it again.
        self.writer = f"{ctx.random.getrandbits(64):016x}"
        self.adopt(self.of.empty(), 0)
        if self.unsettled:
            self.phase = Phase.SETTLING
        else:
            recovery.begin(self, ctx)
        return None

    def receive(self, ctx: Context[Any], message: Any) -> Behavior[Any] | None:
        if isinstance(message, calls.Answer | Resumed):
            if self._announce(ctx) is stopped:
                return stopped
            return self._answered(ctx, message) if isinstance(message, calls.Answer) else self._go_on(ctx)
        if self.phase is not Phase.READY:
            backlog.put_off(ctx)
            if self.phase is Phase.FAILED:
                # Somebody's rule was to resume: what is true can only be asked of the journal.
                recovery.begin(self, ctx)
        elif self.released and self._is_closing(ctx):
            self.released = False
            backlog.put_back(ctx, self.kept)
        elif self._is_closing(ctx) or (not self.released and backlog.waiting(ctx, self.kept)):
            backlog.put_off(ctx)
            self._next(ctx)
        else:
            return self._command(ctx, message)
        return None

    def on_signal(self, ctx: Context[Any], signal: Signal) -> Behavior[Any] | None:
        if isinstance(signal, PreRestart | PostStop):
            self._end(ctx, signal)
        elif self._announce(ctx) is stopped:
            return stopped
        following = self.of.on_signal(ctx, signal)
        return following if following is unhandled else _checked(following)

    def check(self, message: Any) -> None:
        self.of._recovered = self.is_recovered
        self.of.check(message)

    @property
    def is_recovered(self) -> bool:
        """Whether its state is what the journal says."""
        return self.phase in (Phase.READY, Phase.PERSISTING)

    def _is_closing(self, ctx: Context[Any]) -> bool:
        return ctx.journal is not None and self.journal(ctx).is_closing

    def _go_on(self, ctx: Context[Any]) -> Behavior[Any] | None:
        """In a new run: with what the last one has left to it."""
        try:
            return snapshots.take(self, ctx) if self.owed and self.phase is Phase.READY else None
        finally:
            self._next(ctx)

    def _end(self, ctx: Context[Any], signal: Signal) -> None:
        cell = ctx._cell
        cell.work.pop(_HELD, None)
        pending, self.pending = self.pending, None
        if pending is not None and pending.reply_to is not None:
            kind = ActorFailed if isinstance(signal, PreRestart) else ActorStopped
            pending.reply_to.fail(
                kind(f"{cell.address} ended while it wrote events; whether they are written is unknown.")
            )
        if isinstance(signal, PostStop):
            return
        if self.released:
            backlog.take_back(ctx, self.kept)
            self.released = False
        # A restart begins with what it was spawned with: here, with what must not be forgotten as well.
        after = Running(self.of, unsettled=self.unsettled)
        if ctx.journal is None:
            after.state, after.seq, after.remembered = self.state, self.seq, True
        cell.initial = after

    # -- recovering: see `_recovery`

    def recovered(self, ctx: Context[Any]) -> Behavior[Any] | None:
        self.phase = Phase.READY
        self.announced = False
        try:
            return self._announce(ctx)
        finally:
            self._next(ctx)

    def _announce(self, ctx: Context[Any]) -> Behavior[Any] | None:
        """Tells that the state is there, if it is and this run has not been told."""
        if self.announced or self.phase is not Phase.READY:
            return None
        self.announced = True
        return self.tell(ctx, signals.RecoveryCompleted())

    # -- handling commands

    def _command(self, ctx: Context[Any], command: Any) -> Behavior[Any] | None:
        self.released = False  # If one was, it is this.
        try:
            if self._announce(ctx) is stopped:
                backlog.put_off(ctx)
                return stopped
            before = ctx.stashed
            effect = self.of.on_command(ctx, self.state, command)
            if ctx.stashed != before:
                self.kept = backlog.undo(ctx, before, self.kept)
                raise ValueError("An event-sourced behavior returns stash(), or then_unstash_all().")
            return None if effect is None else self._have(ctx, command, effect)
        finally:
            self._next(ctx)

    def _have(self, ctx: Context[Any], command: Any, effect: Effect[Any]) -> Behavior[Any] | None:
        for step in effect.steps:
            if isinstance(step, Reply | Refuse) and step.request is not command:
                raise ValueError("Only the command that the effect is of can be answered.")
        if effect.verdict is Verdict.STASHED:
            backlog.keep(ctx, self.kept)
            self.kept += 1
        if effect.events:
            return self._persist(ctx, command, effect)
        following = self._step(ctx, effect.steps)
        return unhandled if effect.verdict is Verdict.UNHANDLED else following

    def _persist(self, ctx: Context[Any], command: Any, effect: Effect[Any]) -> Behavior[Any] | None:
        # The event handler first: what it refuses must not be written.
        steps: list[tuple[Any, Any]] = []
        state = self.state
        for event in effect.events:
            state = self.of.on_event(state, event)
            steps.append((state, event))
        seq = self.seq + len(steps)
        if ctx.journal is None:
            self.adopt(state, seq)
            return self._step(ctx, effect.steps)
        journal = self.journal(ctx)
        try:
            written = [write(event) for event in effect.events]
            append = journal.append(self.persistence_id, self.seq + 1, written, self.writer)
        except EventsRejected as error:
            return self._rejected(ctx, command, error)
        except Exception as error:
            return self._rejected(ctx, command, EventsRejected(f"An event can't be written: {error}"))
        due = self.of.retention.due(self.seq, steps)
        self.pending = Pending(command, ctx._cell.reply_to, state, seq, due, effect.steps)
        self.phase = Phase.PERSISTING
        ctx._cell.work[_HELD] = Piped(_Held(), None, calls.as_it_is, None)
        self.call(ctx, append, calls.AppendFailed)
        return None

    def _persisted(self, ctx: Context[Any]) -> Behavior[Any] | None:
        pending = self._take_pending(ctx)
        self.phase = Phase.READY
        self.adopt(pending.state, pending.seq)
        try:
            following = snapshots.take(self, ctx) if pending.due else None
            return self._step(ctx, pending.steps) or following
        finally:
            self._next(ctx)

    def _not_persisted(self, ctx: Context[Any], error: BaseException) -> Behavior[Any] | None:
        pending = self._take_pending(ctx)
        if isinstance(error, EventsRejected):
            self.phase = Phase.READY
            try:
                return self._rejected(ctx, pending.command, error)
            finally:
                self._next(ctx)
        self.phase = Phase.FAILED
        if isinstance(error, Fenced):
            raise error
        raise JournalFailed(
            f"Whether events {self.seq + 1} to {pending.seq} of {self.persistence_id!r} are written is "
            f"unknown: {type(error).__name__}: {error}"
        ) from error

    def _rejected(self, ctx: Context[Any], command: Any, error: EventsRejected) -> Behavior[Any] | None:
        cell = ctx._cell
        if cell.reply_to is not None:
            cell.reply_to.fail(error)
        return self.tell(ctx, signals.PersistRejected(error))

    def _take_pending(self, ctx: Context[Any]) -> Pending:
        """The command is this turn's again: it can be answered, and what is raised now is told its asker."""
        pending = self.pending
        assert pending is not None
        self.pending = None
        cell = ctx._cell
        del cell.work[_HELD]
        cell.current, cell.reply_to = pending.command, pending.reply_to
        return pending

    def _step(self, ctx: Context[Any], steps: Sequence[Step]) -> Behavior[Any] | None:
        following: Behavior[Any] | None = None
        for step in steps:
            if isinstance(step, Run):
                step.act(self.state)
            elif isinstance(step, Reply):
                ctx.reply(step.request, step.answer(self.state))
            elif isinstance(step, Refuse):
                ctx.refuse(step.request, step.error)
            elif step is Then.STOP:
                following = stopped
            else:
                ctx.unstash_all()
                self.kept = 0
        return following

    def _next(self, ctx: Context[Any]) -> None:
        """The first of those that waited comes next, if one did."""
        if self.phase is not Phase.READY or self.released or self._is_closing(ctx):
            return
        if backlog.waiting(ctx, self.kept):
            backlog.release(ctx, self.kept)
            self.released = True

    # -- the journal's answers

    def journal(self, ctx: Context[Any]) -> calls.Calls:
        journal = ctx.journal
        if journal is None:
            raise RecoveryError(f"{ctx.self.address} had a journal, and has none any more.")
        return calls.calls_of(journal)

    def call(self, ctx: Context[Any], call: Awaitable[calls.Answer], err: type[calls.Failed]) -> None:
        self.unsettled += 1
        ctx.pipe_to_self(call, calls.as_it_is, err)

    def _answered(self, ctx: Context[Any], answer: calls.Answer) -> Behavior[Any] | None:
        self.unsettled -= 1
        if self.phase is Phase.SETTLING:
            if not self.unsettled:
                recovery.begin(self, ctx)
            return None
        match answer:
            case calls.Appended():
                return self._persisted(ctx)
            case calls.AppendFailed(error):
                return self._not_persisted(ctx, error)
            case calls.Began():
                return recovery.began(self, ctx, answer)
            case calls.Read(entries):
                return recovery.replay(self, ctx, entries)
            case calls.ReadFailed(error):
                recovery.fail(self, ctx, error)
            case calls.Saved():
                return snapshots.saved(self, ctx, None)
            case calls.SaveFailed(error):
                return snapshots.saved(self, ctx, error)
            case calls.SnapshotsDeleted(oldest):
                return snapshots.deleted(self, ctx, oldest)
            case calls.SnapshotsNotDeleted(error):
                return self.tell(ctx, signals.DeleteSnapshotsFailed(error))
            case calls.EventsDeleted(upto):
                return self.tell(ctx, signals.DeleteEventsCompleted(upto))
            case calls.EventsNotDeleted(error):
                return self.tell(ctx, signals.DeleteEventsFailed(error))
        return None

    # -- the user's part

    def adopt(self, state: Any, seq: int) -> None:
        self.state, self.seq = state, seq
        self.of._state, self.of._seq = state, seq

    def tell(self, ctx: Context[Any], signal: Signal) -> Behavior[Any] | None:
        following = self.of.on_signal(ctx, signal)
        return None if following is unhandled else _checked(following)

    # -- written down

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls._read, serialization=core_schema.plain_serializer_function_ser_schema(cls._write)
        )

    def _write(self) -> Json:
        fields = {name: getattr(self, name) for name in _FIELDS}
        return {
            **fields,
            "of": write_behavior(self.of),
            "state": write(self.state),
            "phase": self.phase.value,
        }

    @classmethod
    def _read(cls, written: Json) -> Running:
        fields = {name: written[name] for name in _FIELDS if name in written}
        of: Any = read_behavior(written["of"])
        one = cls(of, **fields)
        one.phase = Phase(written["phase"])
        one.adopt(read(written["state"]), one.seq)
        return one


def as_its_user_sees(behavior: Behavior[Any]) -> Behavior[Any]:
    """Of an event-sourced actor the user's own behavior, with its `state`; of others what they have."""
    return behavior.of if isinstance(behavior, Running) else behavior


def resume(runtime: Runtime) -> None:
    """In a new run: has every event-sourced actor have its `RecoveryCompleted` now, and go on.

    Without this, it comes right before the first message or signal.
    """
    for cell in list(runtime.cells()):
        if isinstance(cell.behavior, Running):
            cell.deliver(Adapted(_resumed, None))


def _resumed(_: None) -> Resumed:
    return Resumed()


def _checked(following: Behavior[Any] | None) -> Behavior[Any] | None:
    if following is None or following is same or following is stopped:
        return following
    raise ValueError(f"An event-sourced behavior can stop at a signal, but not become {following!r}.")
