"""A session's actor, as its turn's activity reaches it: by Temporal, and in its own run only."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from temporalio import activity
from temporalio.client import Client, WorkflowQueryFailedError
from temporalio.service import RPCError

from goatherd.contracts.chat import Changed, Event, FinishReply, SessionView
from goatherd.errors import Unavailable
from goatherd.temporal import ask, translate


class TemporalTurnActor:
    """`TurnActor`, to be used inside of an activity that a workflow has started."""

    def __init__(self, client: Client, *, timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s

    async def is_closed(self, session: str, reply: str) -> bool:
        handle = self._client.get_workflow_handle(session, run_id=activity.info().workflow_run_id)
        try:
            view = await handle.query(
                "Session", result_type=SessionView, rpc_timeout=timedelta(seconds=self._timeout_s)
            )
        except RPCError as error:
            raise translate(error) from error
        except WorkflowQueryFailedError as error:
            raise Unavailable(f"The session can't be asked how it is: {error.message}") from error
        return bool(view.replying != reply)

    async def finish(self, session: str, order: FinishReply) -> Sequence[Event]:
        changed = await ask(
            self._client,
            session,
            order,
            Changed,
            timeout_s=self._timeout_s,
            ask_id=f"finish {order.message}" if order.reply is not None else None,
            run_id=activity.info().workflow_run_id,
        )
        return changed.events
