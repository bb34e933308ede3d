"""The subtasks of a task and what follows from what: who waits for whom, what an end does to the others.

Plain and deterministic. What happens is told as events (`task_log.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappush
from typing import Any

from goatherd.contracts.ids import assignment_id, subtask_id, subtask_number
from goatherd.contracts.model import Json
from goatherd.contracts.task import (
    DEFAULT_PRIORITY,
    MOST_LEASES_SHOWN,
    Backoff,
    Counts,
    TaskEventType,
    Verdict,
)
from goatherd.contracts.task_messages import Place
from goatherd.errors import Conflict, Invalid, InvalidTransition, NotFound
from workflows.task_items import (
    BLOCKED,
    CANCELLED,
    COMPLETED,
    DEAD,
    FAILED,
    LEASED,
    PENDING,
    UNFINISHED,
    Item,
    Items,
    Lease,
)
from workflows.task_log import TaskLog, written_moment
from workflows.task_queue import ReadyQueue

DEPENDENCY_FAILED = "dependency-failed"
LOST = (FAILED, CANCELLED, DEAD)


class Rules:
    """What a task is made with, as far as it matters here. Times are seconds since 1970."""

    __slots__ = (
        "backoff", "consensus", "deadline", "lease_s", "max_attempts", "overlap", "priority", "salt",
    )  # fmt: skip

    def __init__(
        self,
        *,
        salt: str,
        lease_s: float = 60.0,
        max_attempts: int = 3,
        backoff: Backoff | None = None,
        overlap: int = 1,
        consensus: str = "none",
        deadline: float | None = None,
        priority: int = 3,
    ) -> None:
        self.salt = salt
        self.lease_s = lease_s
        self.max_attempts = max_attempts
        self.backoff = backoff or Backoff()
        self.overlap = overlap
        self.consensus = consensus
        self.deadline = deadline
        self.priority = priority


class Subtasks:
    """How all subtasks stand at one time. `items` and `log` outlast it; the rest follows. `closing`: why
    nobody is to take any, if the task ends. `available`: how many subtasks somebody could take now."""

    def __init__(self, rules: Rules, items: Items, log: TaskLog, fence: int = 0) -> None:
        self.rules = rules
        self.items = items
        self.fence = fence
        self.closing: str | None = None
        self.leases: dict[int, Lease] = {}
        self.available = 0
        self.counts = dict.fromkeys((BLOCKED, PENDING, LEASED, COMPLETED, FAILED, CANCELLED, DEAD), 0)
        self._log = log
        self._ready = ReadyQueue(items, self._is_free)
        self._takes: dict[str, dict[int, Lease]] = {}
        self._later: list[tuple[float, int]] = []
        self._ends: list[tuple[float, int]] = []
        self._now = 0.0
        for item in items:
            self.counts[item.status] += 1
            for lease in (item.leases or {}).values():
                self._hold(lease)
                self._ends.append((lease.expires_at, lease.fence))
            item.free = False  # Not counted here yet.
            self._offer(item)
        heapify(self._ends)

    # -- adding

    def add(self, places: Sequence[Place], count: int) -> range:
        """Adds subtasks; gives their numbers. `subtasks.created`, which tells of them, is the next event.

        A dependency that has failed already cancels its dependents at once.

        Raises:
            Invalid: a dependency is not there.
        """
        first, info = len(self.items) + 1, self._log.seq + 1
        for at in range(count):
            for other in places[at].depends_on if at < len(places) else ():
                # None of the same request by its number: the look for cycles would not see that.
                if not (1 <= other < first or -count < other <= 0):
                    raise Invalid(
                        f"Subtask {at} depends on one that is not there.", pointer=f"/{at}/depends_on"
                    )
        for at in range(count):
            place = places[at] if at < len(places) else _PLAIN
            item = self.items.add(place.priority or self.rules.priority, place.requires, info)
            if place.depends_on:
                depends = dict.fromkeys(other if other > 0 else first - other for other in place.depends_on)
                item.depends = list(depends)
        added = range(first, first + count)
        for number in added:
            item = self.items[number]
            for other in item.depends or ():
                on = self.items[other]
                if on.dependents is None:
                    on.dependents = []
                on.dependents.append(number)
                if on.status != COMPLETED:
                    item.waits_for += 1
            item.status = BLOCKED if item.waits_for else PENDING
            self.counts[item.status] += 1
            self._offer(item)
        return added

    def cancel_hopeless(self, added: range) -> list[int]:
        """Cancels those of new subtasks whose dependency has failed already; gives their numbers."""
        hopeless = []
        for number in added:
            item = self.items[number]
            for other in item.depends or ():
                if item.status == BLOCKED and self.items[other].status in LOST:
                    self._cancel_dependent(item, other)
            if item.status == CANCELLED:
                hopeless.append(number)
        return hopeless

    def _end(self, item: Item, lease: Lease, outcome: str) -> dict[str, Any]:
        self._let_go(lease)
        assert item.leases is not None
        del item.leases[lease.fence]
        record = _written(lease) | {"ended_at": self._now, "outcome": outcome}
        # Those of whoever has answered it are needed as long as somebody may say the same again.
        item.past = [*(item.past or ()), record][-max(MOST_LEASES_SHOWN, self.rules.overlap) :]
        return record

    def _hold(self, lease: Lease) -> None:
        self.leases[lease.fence] = lease
        if lease.take is not None:
            self._takes.setdefault(lease.take, {})[lease.fence] = lease

    def _let_go(self, lease: Lease) -> None:
        del self.leases[lease.fence]
        if lease.take is not None:
            taken = self._takes[lease.take]
            del taken[lease.fence]
            if not taken:
                del self._takes[lease.take]

    # -- ends, and what follows from them

    def _close(
        self, item: Item, status: str, kind: TaskEventType, about: Json, *, reason: str | None = None
    ) -> None:
        for lease in list((item.leases or {}).values()):
            self._end(item, lease, "cancelled")
        item.leases = None
        item.not_before = None
        item.reason = reason
        self._set(item, status)
        self._tell(item, kind, about)
        if status == COMPLETED:
            self._unblock(item)
        else:
            self._cancel_dependents(item)

    def _unblock(self, item: Item) -> None:
        for number in item.dependents or ():
            follower = self.items[number]
            if follower.waits_for:
                follower.waits_for -= 1
            if follower.status == BLOCKED and not follower.waits_for:
                self._set(follower, PENDING)
                self._offer(follower)
                self._tell(follower, TaskEventType.SUBTASK_UNBLOCKED, {})

    def _cancel_dependents(self, item: Item) -> None:
        for number in item.dependents or ():
            if self.items[number].status == BLOCKED:
                self._cancel_dependent(self.items[number], item.number)

    def _cancel_dependent(self, item: Item, cause: int) -> None:
        waiting = [(item, cause)]
        for item, cause in waiting:
            if item.status != BLOCKED:
                continue
            item.cause = cause
            item.reason = DEPENDENCY_FAILED
            self._set(item, CANCELLED)
            self._tell(item, TaskEventType.SUBTASK_CANCELLED, {"because_of": self.id(cause)})
            waiting.extend((self.items[number], item.number) for number in item.dependents or ())

    def requeue(self, item: Item) -> None:
        """Has a failed, dead or cancelled subtask done after all, with all of its attempts; and, if it waits
        for nobody else, what was cancelled because of it."""
        waiting = [item]
        for item in waiting:
            if item.status not in LOST:
                continue
            hopeless = self.hopeless(item)
            if hopeless:
                if item is waiting[0]:
                    raise InvalidTransition(
                        f"It depends on {self.id(hopeless[0])}, which is not going to be done: requeue that."
                    )
                item.cause = hopeless[0]
                continue
            item.failures = item.cause = 0
            item.reason = item.error = item.verdict = item.not_before = None
            item.waits_for = sum(self.items[one].status != COMPLETED for one in item.depends or ())
            self._set(item, BLOCKED if item.waits_for else PENDING)
            self._offer(item)
            self._tell(item, TaskEventType.SUBTASK_REQUEUED, {})
            waiting.extend(
                self.items[number]
                for number in item.dependents or ()
                if self.items[number].status == CANCELLED and self.items[number].cause == item.number
            )

    def hopeless(self, item: Item) -> list[int]:
        """Those that it depends on and that are not going to be done."""
        return [one for one in item.depends or () if self.items[one].status in LOST]

    def cancel_waiting(self, kind: TaskEventType, reason: str, *, held: bool = False) -> None:
        """Cancels all that nobody has, by one event for all of them; before that, with `held`, what somebody
        has, too."""
        for item in self.items:
            if item.status in (BLOCKED, PENDING):
                item.reason = reason
                item.not_before = None
                self._set(item, CANCELLED)
                self._count(item)
        if held:
            self._cancel_held(reason)
        self._log.emit(kind, self._now, data={"reason": reason})

    def _cancel_held(self, reason: str) -> None:
        for number in dict.fromkeys(lease.number for lease in self.leases.values()):
            item = self.items[number]
            self._close(item, CANCELLED, TaskEventType.SUBTASK_CANCELLED, {}, reason=reason)

    # -- changes

    def change(
        self, item: Item, priority: int | None, requires: list[str] | None, info: Json, version: int | None
    ) -> None:
        """Changes what is said of a subtask that is not done. A holder keeps what he was given.

        Raises:
            Conflict: its `info_version` is another one by now (`version-conflict`).
            InvalidTransition: it is done.
        """
        if version is not None and version != item.info:
            raise Conflict("The subtask was changed meanwhile. Read it again.", code="version-conflict")
        if item.status not in UNFINISHED:
            raise InvalidTransition(f"A subtask that is {item.status} can't be changed.")
        item.info = self._log.seq + 1
        if priority is not None:
            item.priority = priority
        if requires is not None:
            item.group = self.items.group(requires)
            info = info | {"requires": list(self.items.groups[item.group])}
        self._offer(item)
        self._tell(item, TaskEventType.SUBTASK_UPDATED, {"info": info | {"info_version": item.info}})

    # -- how things stand

    def item(self, subtask: str) -> Item:
        """Raises `NotFound` if the task has none of this id."""
        item = self.items.find(subtask_number(self._log.task, subtask))
        if item is None:
            raise NotFound(f"There is no subtask {subtask!r} in this task.")
        return item

    @property
    def unfinished(self) -> int:
        return self.counts[BLOCKED] + self.counts[PENDING] + self.counts[LEASED]

    def summary(self) -> Counts:
        return Counts(**self.counts)

    def _is_free(self, item: Item) -> bool:
        return (
            item.status in (PENDING, LEASED) and item.not_before is None and item.taken < self.rules.overlap
        )

    def _count(self, item: Item) -> None:
        """Keeps `available` in line with a subtask that has changed."""
        free = self._is_free(item)
        if free is not item.free:
            item.free = free
            self.available += 1 if free else -1

    def _offer(self, item: Item) -> None:
        self._count(item)
        if item.status not in (PENDING, LEASED):
            return
        if item.not_before is not None:
            heappush(self._later, (item.not_before, item.number))
        elif item.taken < self.rules.overlap:
            self._ready.put(item)

    def _set(self, item: Item, status: str) -> None:
        self.counts[item.status] -= 1
        self.counts[status] += 1
        item.status = status

    @property
    def task(self) -> str:
        return self._log.task

    def id(self, number: int) -> str:
        return subtask_id(self._log.task, number)

    def _tell(self, item: Item, kind: TaskEventType, data: Json) -> None:
        self._count(item)
        self._log.emit(kind, self._now, subtask=self.id(item.number), state=self._state(item), data=data)

    def _state(self, item: Item) -> Json:
        """A `SubtaskState` as JSON, without what is as usual or follows from its event: it is most of every
        answer and history."""
        state: Json = {"status": item.status}
        if item.priority != DEFAULT_PRIORITY:
            state["priority"] = item.priority
        leases = [self._record(record) for record in (item.past or ())[-MOST_LEASES_SHOWN:]]
        if item.leases:
            state["assignees"] = [lease.worker for lease in item.leases.values()]
            leases += [self._record(_written(lease)) for lease in item.leases.values()]
        if leases:
            state["leases"] = leases
        if item.answers:
            state["answers"] = [assignment_id(self._log.task, answer[1]) for answer in item.answers]
        if item.not_before is not None:
            state["not_before"] = written_moment(item.not_before)
        if item.failures:
            state["attempts"] = item.failures
        if item.waits_for:
            state["waits_for"] = item.waits_for
        for name in ("progress", "error", "reason", "verdict"):
            if (value := getattr(item, name)) is not None:
                state[name] = value
        return state

    def _record(self, record: dict[str, Any]) -> Json:
        """A `LeaseRecord`, as JSON: its id follows from its fence."""
        written: Json = {
            "worker": record["worker"],
            "attempt": record["attempt"],
            "fence": record["fence"],
            "taken_at": written_moment(record["taken_at"]),
            "expires_at": written_moment(record["expires_at"]),
        }
        if "outcome" in record:
            written["ended_at"] = written_moment(record["ended_at"])
            written["outcome"] = record["outcome"]
        return written

    def _about(self, lease: Lease) -> Json:
        return {"assignment": assignment_id(self._log.task, lease.fence), "worker": lease.worker}

    def _verdict(self, answers: list[tuple[str, int, int]]) -> Verdict:
        """Which answer counts: of equal ones, the first. Without a rule, several have no one result."""
        rule = self.rules.consensus
        votes: dict[int, int] = {}
        for _, _, digest in answers:
            votes[digest] = votes.get(digest, 0) + 1
        most = max(votes.values())
        needed = {"majority": len(answers) // 2 + 1, "all": len(answers)}.get(rule, len(answers) + 1)
        winner = next(fence for _, fence, digest in answers if votes[digest] == most)
        agreed = most >= needed
        return Verdict(
            rule=rule,
            agreed=agreed,
            votes=most,
            answers=len(answers),
            answer=assignment_id(self._log.task, winner) if agreed else None,
        )


_PLAIN = Place()
_OF_DONE = ("fence", "attempt", "outcome", "digest", "left")


def _written(lease: Lease) -> dict[str, Any]:
    return {
        "worker": lease.worker,
        "attempt": lease.attempt,
        "fence": lease.fence,
        "taken_at": lease.taken_at,
        "expires_at": lease.expires_at,
    }


def forget(item: Item) -> None:
    """Of one that is completed, all that nobody asks for again."""
    if item.answers:
        _, item.fence, item.digest = item.answers[-1]
        said = [record for record in item.past or () if "left" in record]
        if len(said) > 1:
            item.done = [{name: record[name] for name in _OF_DONE if name in record} for record in said]
    item.answers = item.past = item.verdict = item.checkpoint = item.progress = None
