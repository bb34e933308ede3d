"""Snapshots of an event-sourced actor: one at a time, in the background, and what is deleted after each.

None of it fails the actor: what goes wrong is told it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from goatherd.actors._behavior import Behavior, stopped
from goatherd.actors._context import Context
from goatherd.actors._wire import write
from goatherd.actors.persistence import _calls as calls
from goatherd.actors.persistence import _signals as signals

if TYPE_CHECKING:
    from goatherd.actors.persistence._running import Running

Following = Behavior[Any] | None


def take(running: Running, ctx: Context[Any]) -> Following:
    """Has the state saved as it is now; later, if one is on its way, or the run is about to end."""
    journal = running.journal(ctx)
    if running.saving is not None or journal.is_closing:
        running.owed = True  # The next is of what the state is by then.
        return None
    running.owed = False
    try:
        save = journal.save(running.persistence_id, running.seq, write(running.state))
    except Exception as error:
        return running.tell(ctx, signals.SnapshotFailed(running.seq, error))
    running.saving = running.seq
    running.call(ctx, save, calls.SaveFailed)
    return None


def saved(running: Running, ctx: Context[Any], error: BaseException | None) -> Following:
    """It is, or is not."""
    seq, running.saving = running.saving, None
    assert seq is not None
    if running.owed and running.is_recovered and take(running, ctx) is stopped:
        return stopped
    if error is not None:
        return running.tell(ctx, signals.SnapshotFailed(seq, error))
    keep = running.of.retention.keep
    if keep is not None:
        deletion = running.journal(ctx).delete_snapshots(running.persistence_id, keep)
        running.call(ctx, deletion, calls.SnapshotsNotDeleted)
    return running.tell(ctx, signals.SnapshotCompleted(seq))


def deleted(running: Running, ctx: Context[Any], oldest: int) -> Following:
    """Snapshots before `oldest` are; 0: none had to be."""
    if oldest and running.of.retention.delete_events:
        deletion = running.journal(ctx).delete_events(running.persistence_id, oldest)
        running.call(ctx, deletion, calls.EventsNotDeleted)
    return running.tell(ctx, signals.DeleteSnapshotsCompleted(oldest))
