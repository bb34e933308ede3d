"""New subtasks: checked, and sent to the actor in whole or, if they are large, by way of the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from api.errors import InvalidInput
from api.idempotency import Ids
from api.task_schemas import SubtaskBody
from goatherd.contracts.ids import subtask_number
from goatherd.contracts.task import SubtaskInfo, SubtaskSpec
from goatherd.contracts.task_messages import AddSubtasks, Place
from workflows.task_adding import refuse_cycles

MOST_INLINE_BYTES = 16_384
"""Of a request whose subtasks go through the actor; of a larger one it gets only what it has to know."""
MOST_INLINE = 200
_NOTHING = Place()


@dataclass(frozen=True, slots=True)
class New:
    """Subtasks that are asked for. `batch`: the id under which the store is to have them first."""

    specs: list[SubtaskSpec]
    places: list[Place]
    batch: str | None

    def order(self, request_id: str | None) -> AddSubtasks:
        if self.batch is None:
            return AddSubtasks(id=request_id, subtasks=self.specs)
        # Those at the end of which nothing is said are left out.
        said = next((at for at in range(len(self.places), 0, -1) if self.places[at - 1] != _NOTHING), 0)
        return AddSubtasks(batch=self.batch, count=len(self.specs), places=self.places[:said])

    def infos(self, ids: Sequence[str], task: str, first: int, seq: int, at: datetime) -> list[SubtaskInfo]:
        """They as `subtasks.created` number `seq` makes them."""
        return [
            spec.info(
                ids[place],
                task=task,
                number=first + place,
                depends_on=[ids[-on] for on in self.places[place].depends_on if on <= 0],
                seq=seq,
                at=at,
            )
            for place, spec in enumerate(self.specs)
        ]


def read_new(
    bodies: Sequence[SubtaskBody],
    *,
    task: str,
    size: int,
    ids: Ids,
    priority: int,
    pointer: str,
    several: bool = True,
) -> New:
    """`size`: of the request, in bytes. `pointer`: where in it they stand; with `several`, as an array.

    Raises:
        InvalidInput: a key is there twice, or a dependency is neither a key nor can be of this task.
        DependencyCycle: they wait for each other.
    """
    keys: dict[str, int] = {}
    for at, body in enumerate(bodies):
        if body.key is not None and keys.setdefault(body.key, at) != at:
            raise InvalidInput(
                [{"pointer": f"{pointer}/{at}/key", "detail": "Another subtask of the request has it too."}]
            )
    places = []
    for at, body in enumerate(bodies):
        depends = []
        for nth, name in enumerate(body.depends_on):
            number = -keys[name] if name in keys else subtask_number(task, name)
            if number is None:
                place = f"{pointer}/{at}" if several else pointer
                raise InvalidInput(
                    [
                        {
                            "pointer": f"{place}/depends_on/{nth}",
                            "detail": "Neither a subtask of this task nor a `key` of this request.",
                        }
                    ]
                )
            depends.append(number)
        places.append(Place(priority=body.priority, requires=body.requires, depends_on=depends))
    refuse_cycles(places, len(places), pointer=pointer if several else "")
    inline = size <= MOST_INLINE_BYTES and len(bodies) <= MOST_INLINE
    specs = [
        SubtaskSpec.model_construct(
            title=body.title,
            input=body.input,
            labels=body.labels,
            # A batch counts for the store as it is: what is not said has to be.
            priority=body.priority if inline or body.priority is not None else priority,
            requires=body.requires,
            depends_on=body.depends_on,
            key=body.key,
        )
        for body in bodies
    ]
    return New(specs, places, None if inline else ids.make("batch", "subtasks"))
