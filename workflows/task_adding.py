"""What is made of new subtasks as they are asked for."""

from __future__ import annotations

from collections.abc import Sequence

from goatherd.contracts.model import Json
from goatherd.contracts.task import SubtaskSpec
from goatherd.contracts.task_messages import Place
from goatherd.errors import DependencyCycle, Invalid, NotFound
from workflows.task_items import Item, check_cycles
from workflows.task_log import moment
from workflows.task_subtasks import Subtasks


def places_of(specs: Sequence[SubtaskSpec], subtasks: Subtasks) -> list[Place]:
    """What the actor has to know of each.

    Raises:
        Invalid: one depends on what is neither there nor in the same request, or two have the same key.
    """
    keys: dict[str, int] = {}
    for at, spec in enumerate(specs):
        if spec.key is not None and keys.setdefault(spec.key, at) != at:
            raise Invalid(f"Two subtasks have the key {spec.key!r}.", pointer=f"/{at}/key")
    places = []
    for at, spec in enumerate(specs):
        depends = [_number(name, at, keys, subtasks) for name in spec.depends_on]
        places.append(Place(priority=spec.priority, requires=spec.requires, depends_on=depends))
    return places


def _number(name: str, at: int, keys: dict[str, int], subtasks: Subtasks) -> int:
    if name in keys:
        return -keys[name]
    try:
        return subtasks.item(name).number
    except NotFound:
        raise Invalid(
            f"Subtask {at} depends on {name!r}, which is neither a subtask of this task nor a `key` in this"
            " request.",
            pointer=f"/{at}/depends_on",
        ) from None


def refuse_cycles(places: Sequence[Place], count: int, *, pointer: str | None = None) -> None:
    """Raises `DependencyCycle` if some of the new ones wait for each other.

    `pointer`: where in the request the array of them stands; None: nobody knows, and none is pointed at.
    """
    depends = {
        at: [-other for other in place.depends_on if other <= 0]
        for at, place in enumerate(places)
        if any(other <= 0 for other in place.depends_on)
    }
    cycle = check_cycles(count, depends) if depends else None
    if cycle is not None:
        way = " → ".join(str(at) for at in cycle)
        one = "" if pointer is None else f"{pointer}/{cycle[0]}"
        raise DependencyCycle(
            f"Subtasks wait for each other: {way} (counted from 0).", pointer=f"{one}/depends_on"
        )


def info_of(spec: SubtaskSpec, item: Item, subtasks: Subtasks, *, seq: int, now: float) -> Json:
    """The subtask's `SubtaskInfo` as JSON, and how it begins: `status` and `priority`."""
    info = spec.info(
        subtasks.id(item.number),
        task=subtasks.task,
        number=item.number,
        depends_on=[subtasks.id(other) for other in item.depends or ()],
        seq=seq,
        at=moment(now),
    )
    return info.model_dump(mode="json") | {"status": item.status, "priority": item.priority}
