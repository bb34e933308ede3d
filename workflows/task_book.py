"""The rules of tasks: who may have which subtask, for how long, and what follows from what becomes of it.

Plain and deterministic: told the time, it answers at once. What it does it tells as events (`task_log.py`);
`task_behavior.py` connects it with the actor that it belongs to.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from heapq import heappop, heappush
from typing import Any

from goatherd.contracts.ids import assignment_id
from goatherd.contracts.model import Json
from goatherd.contracts.task import OUTCOMES, TaskEventType
from goatherd.contracts.task_messages import Heartbeat, Leased, ReportStatus, TakeSubtasks
from goatherd.errors import Invalid, InvalidTransition, LeaseLost
from workflows.task_items import (
    CANCELLED,
    COMPLETED,
    DEAD,
    FAILED,
    LEASED,
    PENDING,
    UNFINISHED,
    Item,
    Lease,
)
from workflows.task_log import moment
from workflows.task_subtasks import LOST, Subtasks, forget

_UNSAID = {"code": "error", "message": ""}


class Outcome:
    """What became of a report. `number`, `status`: of the subtask; the rest of the lease, if it was one's."""

    __slots__ = ("attempt", "fence", "number", "outcome", "status")

    def __init__(
        self, number: int, status: str, fence: int = 0, attempt: int = 0, outcome: str | None = None
    ) -> None:
        self.number = number
        self.status = status
        self.fence = fence
        self.attempt = attempt
        self.outcome = outcome


class TaskBook(Subtasks):
    """The leases of a task's subtasks: who takes which, how long he has it, what he reports."""

    # -- time

    def advance(self, now: float) -> None:
        """Ends leases that have run out, and offers what has waited for its backoff.

        Those that last until the task's deadline end with the task, by whoever ends that."""
        self._now = now
        while self._ends and self._ends[0][0] <= now:
            end, fence = self._ends[0]
            if end == self.rules.deadline and self.closing is None:
                break  # None ends later.
            heappop(self._ends)
            lease = self.leases.get(fence)
            # One that was extended has another entry.
            if lease is not None and lease.expires_at <= now:
                self._expire(lease)
        while self._later and self._later[0][0] <= now:
            item = self.items[heappop(self._later)[1]]
            if item.not_before is not None and item.not_before <= now:
                item.not_before = None
                self._offer(item)

    def next_at(self) -> float | None:
        """When something is due by itself."""
        while self._ends:
            lease = self.leases.get(self._ends[0][1])
            if lease is not None and lease.expires_at == self._ends[0][0]:
                break
            heappop(self._ends)
        while self._later and self.items[self._later[0][1]].not_before != self._later[0][0]:
            heappop(self._later)
        times = [heap[0][0] for heap in (self._ends, self._later) if heap]
        return min(times, default=None)

    def _expire(self, lease: Lease) -> None:
        item = self.items[lease.number]
        self._end(item, lease, "expired")
        item.failures += 1
        self._fail(item, TaskEventType.SUBTASK_EXPIRED, self._about(lease), None)

    # -- taking

    def take(self, order: TakeSubtasks) -> list[Leased]:
        """Leases for a worker."""
        length = order.lease_s or self.rules.lease_s
        taken: list[Leased] = []
        for item in self._ready.take(order.capabilities, order.worker, order.max):
            self.fence += 1
            fence = self.fence
            lease = Lease(
                fence=fence,
                number=item.number,
                worker=order.worker,
                attempt=item.failures + 1,
                taken_at=self._now,
                expires_at=self._until(length),
                length_s=length,
                take=order.id,
            )
            item.fence = fence
            item.leases = {**(item.leases or {}), fence: lease}
            self._hold(lease)
            heappush(self._ends, (lease.expires_at, fence))
            self._set(item, LEASED)
            self._tell(item, TaskEventType.SUBTASK_LEASED, self._about(lease))
            self._offer(item)
            taken.append(self._leased(item, lease))
        return taken

    def taken_by(self, take: str) -> list[Leased]:
        """What a request was given that is still held."""
        taken = self._takes.get(take, {})
        return [self._leased(self.items[taken[fence].number], taken[fence]) for fence in sorted(taken)]

    def _leased(self, item: Item, lease: Lease) -> Leased:
        return Leased(
            id=assignment_id(self._log.task, lease.fence),
            subtask=self.id(item.number),
            lease_token=self.token(lease.fence),
            fence=lease.fence,
            expires_at=moment(lease.expires_at),
            attempt=lease.attempt,
            info_version=item.info,
            checkpoint=item.checkpoint,
        )

    def _until(self, length: float) -> float:
        end = self._now + length
        return end if self.rules.deadline is None else min(end, self.rules.deadline)

    # -- leases

    def token(self, fence: int) -> str:
        """A lease's token: its fence, and what only the task's actor can know of it."""
        proof = hashlib.blake2b(f"{self.rules.salt}/{fence}".encode(), digest_size=12).hexdigest()
        return f"{fence}-{proof}"

    def _fence(self, token: str) -> int:
        number, _, _ = token.partition("-")
        fence = int(number) if number.isascii() and number.isdigit() and len(number) < 16 else 0
        if fence < 1 or self.token(fence) != token:
            raise LeaseLost("This is no lease of the task: take the subtask again.")
        return fence

    def held(self, item: Item, token: str) -> Lease:
        """The lease of a token, which has to be held.

        Raises:
            LeaseLost: it is another subtask's, or has ended.
        """
        fence = self._fence(token)
        lease = (item.leases or {}).get(fence)
        if lease is None:
            record = _record(item, fence)
            how = "is over" if record is None else f"is over: {record['outcome']}"
            raise LeaseLost(f"The lease {how}. What you have may be somebody else's by now: take again.")
        return lease

    def beat(self, order: Heartbeat) -> Lease:
        """Extends a lease; never beyond the task's deadline, nor to an earlier time than it has."""
        item = self.item(order.subtask)
        lease = self.held(item, order.lease_token)
        self._extend(lease, order.extend_s or lease.length_s)
        self._note(item, order.progress, order.checkpoint)
        self._tell(item, TaskEventType.SUBTASK_PROGRESS, self._about(lease))
        return lease

    def _extend(self, lease: Lease, length: float) -> None:
        until = self._until(length)
        if until > lease.expires_at:
            lease.expires_at = until
            heappush(self._ends, (until, lease.fence))

    def _note(self, item: Item, progress: float | None, checkpoint: Any) -> None:
        if progress is not None:
            item.progress = progress
        if checkpoint is not None:
            item.checkpoint = checkpoint

    def tell_cancelled(self, lease: Lease) -> None:
        """Its holder has learnt that the task is cancelled: that ends the lease."""
        item = self.items[lease.number]
        self._end(item, lease, "cancelled")
        about = self._about(lease)
        if item.leases:
            self._tell(item, TaskEventType.SUBTASK_RELEASED, about)
        else:
            self._close(item, CANCELLED, TaskEventType.SUBTASK_CANCELLED, about, reason=self.closing)

    # -- reports

    def report(self, order: ReportStatus) -> Outcome:
        """What a holder, or without a token the owner, says of a subtask.

        Raises:
            LeaseLost: the lease has ended otherwise.
            InvalidTransition: the subtask, or this lease, can't go there.
        """
        item = self.item(order.subtask)
        if order.lease_token is None:
            return self._rule(item, order.status)
        fence = self._fence(order.lease_token)
        if fence not in (item.leases or {}):
            return self._again(item, fence, order)
        lease = self.held(item, order.lease_token)
        self._note(item, order.progress, order.checkpoint)
        if order.status == LEASED:
            self._tell(item, TaskEventType.SUBTASK_PROGRESS, self._about(lease))
            return Outcome(item.number, LEASED, fence, lease.attempt, None)
        record = self._end(item, lease, OUTCOMES[order.status])
        record["digest"] = digest = _digest(order)
        about = self._about(lease)
        if order.status in (COMPLETED, FAILED) and not order.stored:
            about["answer"] = {"result": order.result} if order.status == COMPLETED else {}
            if order.error is not None:
                about["answer"]["error"] = order.error.model_dump(mode="json")
        if order.status == COMPLETED:
            self._complete(item, lease, digest, about)
        elif order.status == FAILED:
            item.failures += 1
            item.error = (order.error.model_dump(mode="json") if order.error else None) or _UNSAID
            if order.retryable:
                self._fail(item, TaskEventType.SUBTASK_RETRYING, about, order.retry_after_s)
            else:
                self._close(item, FAILED, TaskEventType.SUBTASK_FAILED, about)
        elif order.status == PENDING:
            self._free(item, TaskEventType.SUBTASK_RELEASED, about)
        else:
            self._close(item, CANCELLED, TaskEventType.SUBTASK_CANCELLED, about, reason="given-up")
        record["left"] = item.status
        if item.status == COMPLETED:
            forget(item)
        return Outcome(item.number, item.status, fence, lease.attempt, record["outcome"])

    def _again(self, item: Item, fence: int, order: ReportStatus) -> Outcome:
        record = _record(item, fence)
        if record is None or record["outcome"] == "expired":
            raise LeaseLost("The lease is over: it ran out, or the subtask went on without it. Take again.")
        if record["outcome"] != OUTCOMES.get(order.status):
            if "left" not in record:  # It was not the holder who ended it.
                raise LeaseLost("The lease was cancelled.")
            raise InvalidTransition(f"This lease has ended already: {record['outcome']}.")
        if record["outcome"] == "completed":
            digest = _digest(order)
            if digest and record["digest"] not in (0, digest):
                raise InvalidTransition("This lease was reported as completed already, with another result.")
        return Outcome(
            item.number, record.get("left", item.status), fence, record["attempt"], record["outcome"]
        )

    def _rule(self, item: Item, status: str) -> Outcome:
        if status == item.status:
            return Outcome(item.number, item.status)
        if status == CANCELLED and item.status in UNFINISHED:
            self._close(item, CANCELLED, TaskEventType.SUBTASK_CANCELLED, {}, reason="cancelled")
        elif status == PENDING and item.status in LOST:
            self.requeue(item)
        elif status in (COMPLETED, FAILED, LEASED) and item.status in UNFINISHED:
            raise Invalid(
                "Whoever has the subtask reports this, with the `lease_token` of the assignment.",
                pointer="/lease_token",
            )
        else:
            raise InvalidTransition(f"A subtask that is {item.status} can't become {status}.")
        return Outcome(item.number, item.status)

    def _complete(self, item: Item, lease: Lease, digest: int, about: Json) -> None:
        item.error = None
        item.answers = [*(item.answers or ()), (lease.worker, lease.fence, digest)]
        if len(item.answers) < self.rules.overlap:
            self._free(item, TaskEventType.SUBTASK_ANSWERED, about)
            return
        if self.rules.overlap > 1:
            item.verdict = self._verdict(item.answers).model_dump(mode="json")
        self._close(item, COMPLETED, TaskEventType.SUBTASK_COMPLETED, about)

    def _fail(self, item: Item, kind: TaskEventType, about: Json, retry_after_s: float | None) -> None:
        """After an attempt that came to nothing: again later, or never."""
        if item.failures >= self.rules.max_attempts:
            reason = "lease-expired" if kind is TaskEventType.SUBTASK_EXPIRED else "failed"
            self._close(item, DEAD, TaskEventType.SUBTASK_DEAD, about, reason=reason)
            return
        wait = self.rules.backoff.after(item.failures) if retry_after_s is None else retry_after_s
        if wait > 0:
            item.not_before = self._now + wait
        self._free(item, kind, about)

    def _free(self, item: Item, kind: TaskEventType, about: Json) -> None:
        """Has it taken by others, unless there are no others any more."""
        if self.closing is not None and not item.leases:
            self._close(item, CANCELLED, TaskEventType.SUBTASK_CANCELLED, about, reason=self.closing)
            return
        self._set(item, LEASED if item.leases else PENDING)
        self._offer(item)
        self._tell(item, kind, about)


def _record(item: Item, fence: int) -> dict[str, Any] | None:
    """What is known of a lease that has ended."""
    if item.status == COMPLETED and item.done is None and item.fence == fence:
        attempt = item.failures + 1
        usual = {"attempt": attempt, "outcome": "completed", "digest": item.digest, "left": COMPLETED}
        return {"fence": fence, **usual}
    known = item.done if item.status == COMPLETED else item.past
    return next((record for record in known or () if record["fence"] == fence), None)


def _digest(order: ReportStatus) -> int:
    """A number for the result; 0 if it is not known, or is none."""
    if order.status != COMPLETED:
        return 0
    if order.digest is not None:
        return zlib.crc32(order.digest.encode()) or 1
    if order.stored:
        return 0
    # As the API does it: who reports by hand gives the result alone.
    text = json.dumps(order.result, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return zlib.crc32(hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest().encode()) or 1
