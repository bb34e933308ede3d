"""Two stashes in one: what the user put aside, and behind it what came while the actor could not handle it.

The stash of the actor is used, so that one bound holds for both, and both go along when the actor is written
down. The first `kept` are the user's. The others go back to the mailbox one at a time, before all else there:
back all at once, each would be put off again at every event.
"""

from __future__ import annotations

from typing import Any

from goatherd.actors._context import Context
from goatherd.actors._errors import StashFull


def put_off(ctx: Context[Any]) -> None:
    """The message that is being handled waits, as the last. If there is no room, it is a dead letter."""
    cell = ctx._cell
    if len(cell.stash) < cell.stash_capacity:
        ctx.stash()
        return
    cell.runtime.dead(cell.current, cell.address, "stash-full", None)
    if cell.reply_to is not None:
        cell.reply_to.fail(StashFull(f"{cell.address} is busy, and {len(cell.stash)} messages wait."))


def keep(ctx: Context[Any], kept: int) -> None:
    """The message that is being handled is put aside by the user.

    Raises:
        StashFull: there is no room.
    """
    ctx.stash()
    stash = ctx._cell.stash
    stash.insert(kept, stash.pop())


def waiting(ctx: Context[Any], kept: int) -> bool:
    return len(ctx._cell.stash) > kept


def release(ctx: Context[Any], kept: int) -> None:
    """The first of those that wait comes next."""
    cell = ctx._cell
    envelope = cell.stash[kept]
    del cell.stash[kept]
    cell.mailbox.appendleft(envelope)


def put_back(ctx: Context[Any], kept: int) -> None:
    """The end of `release`, as the message is being handled: it waits on, as the first."""
    cell = ctx._cell
    cell.stash.insert(kept, (cell.current, cell.reply_to))
    cell.reply_to = None


def take_back(ctx: Context[Any], kept: int) -> None:
    """The end of `release`, before the message has come."""
    cell = ctx._cell
    cell.stash.insert(kept, cell.mailbox.popleft())


def undo(ctx: Context[Any], before: int, kept: int) -> int:
    """The message that is being handled was put aside by the context, or others taken out. Gives `kept`."""
    cell = ctx._cell
    while len(cell.stash) > before:
        _, cell.reply_to = cell.stash.pop()
    return min(kept, len(cell.stash))
