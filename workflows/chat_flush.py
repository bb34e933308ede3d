"""What the store may lack of a session, and when the actor writes it itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from activities.chat import StoreActivities
from goatherd.actors import Context, activity, message
from goatherd.contracts.chat import Flush, Flushed, Session
from workflows.chat_log import SessionLog

QUIET_S = 10.0
"""How long an event that its poster has promised to write may wait before the actor writes it."""
BATCH = 500
_TIMER = "write what nobody has"


@message
class StoreFlushed:
    flushed: Flushed


@message
class Quiet:
    """Nobody has written for a while."""


@dataclass
class Flushing:
    """`stored`: the session's document is in the store. `urgent`: something is not to wait until others write
    it. `upto`: the last number of the write that is under way, or None."""

    stored: bool = False
    urgent: bool = False
    upto: int | None = None

    def go_on(
        self, ctx: Context[Any], log: SessionLog, *, document: Callable[[], Session], writing: bool
    ) -> None:
        """Begins what is to be done now. `writing`: a turn's activity is under way, which writes too.

        Not by a local activity: that would write events of a workflow task which may yet be done anew, with
        other events in their place.
        """
        if self.upto is not None:
            return
        if not self.stored or (self.urgent and not log.is_flushed):
            events = log.unflushed(BATCH)
            self.upto = events[-1].seq if events else 0
            self.urgent = len(events) == BATCH
            ctx.timers.cancel(_TIMER)
            ctx.pipe_to_self(
                activity(
                    StoreActivities.flush,
                    Flush(session=None if self.stored else document(), events=events),
                    timeout="5s",
                ),
                StoreFlushed,
            )
        elif log.is_flushed or writing:
            ctx.timers.cancel(_TIMER)
        elif not ctx.timers.is_active(_TIMER):
            ctx.timers.once(_TIMER, Quiet(), QUIET_S)

    def done(self, log: SessionLog) -> None:
        """The write that was under way has ended well."""
        log.confirm(self.upto or 0)
        self.stored, self.upto = True, None
