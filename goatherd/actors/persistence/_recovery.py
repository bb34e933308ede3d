"""Recovery of an event-sourced actor: its latest snapshot, then the events after it, a piece at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from goatherd.actors._behavior import Behavior
from goatherd.actors._context import Context
from goatherd.actors._ref import resolving
from goatherd.actors._wire import read
from goatherd.actors.persistence import _calls as calls
from goatherd.actors.persistence import _signals as signals
from goatherd.actors.persistence._errors import RecoveryError
from goatherd.actors.persistence._journal import Entry
from goatherd.actors.persistence._phase import Phase

if TYPE_CHECKING:
    from goatherd.actors.persistence._running import Running

Following = Behavior[Any] | None


def begin(running: Running, ctx: Context[Any]) -> None:
    """Forgets what the state was, and asks the journal."""
    running.phase = Phase.RECOVERING
    running.adopt(running.of.empty(), 0)
    running.call(ctx, running.journal(ctx).begin(running.persistence_id), calls.ReadFailed)


def began(running: Running, ctx: Context[Any], answer: calls.Began) -> Following:
    running.highest = answer.highest
    if answer.snapshot is not None:
        try:
            with resolving(ctx._cell.runtime.resolve):
                state = read(running.of.upgrade_state(answer.snapshot.state))
        except Exception as error:
            fail(running, ctx, error)
        running.adopt(state, answer.snapshot.seq)
    return _read_on(running, ctx)


def replay(running: Running, ctx: Context[Any], entries: Sequence[Entry]) -> Following:
    """Some of the events have come."""
    try:
        if not entries:
            raise RecoveryError(
                f"Events {running.seq + 1} to {running.highest} of {running.persistence_id!r} are missing."
            )
        with resolving(ctx._cell.runtime.resolve):
            for entry in entries:
                _replay_one(running, entry)
    except Exception as error:
        fail(running, ctx, error)
    return _read_on(running, ctx)


def fail(running: Running, ctx: Context[Any], cause: BaseException) -> NoReturn:
    """Tells the actor, and raises `RecoveryError`."""
    running.phase = Phase.FAILED
    running.of.on_signal(ctx, signals.RecoveryFailed(cause))
    raise RecoveryError(
        f"{running.persistence_id!r} can't be recovered after event {running.seq}: "
        f"{type(cause).__name__}: {cause}"
    ) from cause


def _read_on(running: Running, ctx: Context[Any]) -> Following:
    if running.seq >= running.highest:
        return running.recovered(ctx)
    running.call(ctx, running.journal(ctx).read(running.persistence_id, running.seq), calls.ReadFailed)
    return None


def _replay_one(running: Running, entry: Entry) -> None:
    if entry.seq != running.seq + 1:
        raise RecoveryError(
            f"Event {running.seq + 1} of {running.persistence_id!r} is missing: {entry.seq} follows."
        )
    state = running.state
    for written in running.of.upgrade_event(entry.event):
        state = running.of.on_event(state, read(written))
    running.adopt(state, entry.seq)
