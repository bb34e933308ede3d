"""Reports that come again when nobody is there any more who would know them: the task is closed.

The last report of a task may be what closes it, and its answer may be lost on the way. Then the store says
what it was. Nothing is changed by that, so that the token, which only the task's actor could check, has to
name the lease only.
"""

from __future__ import annotations

from collections.abc import Sequence

from activities.task_ports import TaskStore
from api.task_json import digest
from goatherd.contracts.ids import assignment_id
from goatherd.contracts.task import OUTCOMES, LeaseRecord, SubtaskState, TaskSummary
from goatherd.contracts.task_messages import Reported, ReportStatus


def named_by(task: str, token: str | None) -> str | None:
    """The assignment that a token names; None: it can be none's."""
    number, _, _ = (token or "").partition("-")
    if not (number.isascii() and number.isdigit() and 0 < len(number) < 12) or not int(number):
        return None
    return assignment_id(task, int(number))


async def reported_before(store: TaskStore, task: str, order: ReportStatus) -> Reported | None:
    """What a report was answered when it came first; None: there was none like it."""
    assignment = named_by(task, order.lease_token)
    known = await store.subtask(task, order.subtask)
    document = await store.task(task)
    if assignment is None or known is None or document is None:
        return None
    state = known.state
    lease = next((one for one in state.leases if one.id == assignment), None)
    if lease is None or lease.outcome != OUTCOMES.get(order.status):
        return None
    left = _left(state, lease)
    if lease.outcome == "cancelled" and (state.reason != "given-up" or left != "cancelled"):
        return None  # It was not its holder who ended it.
    if lease.outcome == "completed":
        answers = await store.answers(task, [order.subtask])
        kept = next((one for one in answers if one.id == assignment), None)
        if kept is None or digest(kept.result) != order.digest:
            return None
    return Reported(
        task=TaskSummary.model_validate(document, from_attributes=True),
        subtask=order.subtask,
        status=left,
        assignment=assignment,
        attempt=lease.attempt,
        outcome=lease.outcome,
    )


def _left(state: SubtaskState, lease: LeaseRecord) -> str:
    """How the subtask stood right after a lease was ended by its holder."""
    if lease.ended_at is None or state.updated_at <= lease.ended_at:
        return state.status.value
    return "leased" if _others(state.leases, lease) else "pending"


def _others(leases: Sequence[LeaseRecord], lease: LeaseRecord) -> bool:
    """Whether somebody else had it when a lease ended."""
    assert lease.ended_at is not None
    return any(
        one.id != lease.id
        and one.taken_at <= lease.ended_at
        and (one.ended_at is None or one.ended_at > lease.ended_at)
        for one in leases
    )
