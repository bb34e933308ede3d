"""What an actor may have to carry: how large its state and its answers may be without a store for payloads.

A state that can't be carried must not end the run: Temporal would refuse the command, again and again. So
it is weighed first. Whether there is a store is a matter of the worker, not of the history; the decision to
rely on one is therefore written down, as a patch, and a replay decides the same whatever its worker has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic_core import to_json
from temporalio import workflow

from goatherd.actors._errors import AnswerTooLarge, StateTooLarge
from goatherd.actors.durable import _protocol as protocol
from goatherd.payloads import carries_large
from goatherd.temporal import failure

MOST_STATE = 1_500_000
"""Bytes. Temporal takes 2 MB; the rest is for what still comes while the run ends."""
MOST_ANSWER = 1_000_000
"""Bytes. Of one answer, as it may be the last of a delivery, whose others have as much."""
EVERY = 100
"""Messages until a state that was too large is weighed again."""

_REMEDY = (
    "give its workers and clients a store for large payloads (`payloads=` of `ActorSystem.connect`), then "
    "tell it something"
)


class Luggage:
    """Of one run. `is_stuck`: when it was last weighed, the state was too large to go on."""

    def __init__(self) -> None:
        self.is_stuck = False
        self._is_packed = False
        self._weighed_at = 0
        self._times = 0

    def is_due(self, processed: int, *, is_full: bool) -> bool:
        """Whether to weigh: at first, then from time to time. `is_full`: the run takes no more asks."""
        return not self.is_stuck or processed - self._weighed_at >= (1 if is_full else EVERY)

    def fits(self, carried: Callable[[], protocol.Carried], processed: int) -> bool:
        """Whether the next run can be given it. Once it can, it can."""
        if self._is_packed:
            return True
        self._weighed_at = processed
        size = len(to_json(carried()))
        self._is_packed = size <= MOST_STATE or self._has_store()
        self.is_stuck = not self._is_packed
        if self.is_stuck:
            workflow.logger.warning(
                "the state is too large for the next run: this one goes on while it can",
                extra={"bytes": size},
            )
        return self._is_packed

    def _has_store(self) -> bool:
        self._times += 1
        if not workflow.unsafe.is_replaying() and not carries_large(workflow.payload_converter()):
            return False
        # True in a replay if it was so then; and if it was not, this run never asks under that name again.
        return workflow.patched(f"goatherd.large-state.{self._times}")


def stuck(address: str) -> StateTooLarge:
    return StateTooLarge(
        f"The state of {address!r} is too large for its next run, and this one can take no more: {_REMEDY}."
    )


def checked_answer(value: Any) -> Any:
    """The answer, if it can be carried. Raises `AnswerTooLarge`, as Temporal carries it."""
    if not carries_large(workflow.payload_converter()) and len(to_json(value)) > MOST_ANSWER:
        raise failure(_too_large())
    return value


def checked_outcomes(outcomes: list[protocol.Outcome]) -> protocol.Outcomes:
    """The outcomes, with an error in the place of each answer that can't be carried."""
    if not carries_large(workflow.payload_converter()):
        error = _too_large()
        refused = protocol.Outcome(code=error.code, message=error.message)
        outcomes = [refused if len(to_json(one.value)) > MOST_ANSWER else one for one in outcomes]
    return protocol.Outcomes(items=outcomes)


def _too_large() -> AnswerTooLarge:
    return AnswerTooLarge(
        "It was applied, but its answer is too large for Temporal: give the actor's workers and clients a "
        "store for large payloads (`payloads=` of `ActorSystem.connect`)."
    )
