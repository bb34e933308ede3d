"""Users' own actor types: found in the modules that `GOATHERD_ACTORS` names, and served beside ours."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from goatherd.actors.durable import DurableActor, ShardedEntity
from goatherd.errors import Invalid


@dataclass(frozen=True, slots=True)
class ActorTypes:
    """What a worker registers: workflow types, and functions that are activities."""

    kinds: tuple[type[Any], ...] = ()
    activities: tuple[Callable[..., Any], ...] = ()

    @property
    def durable(self) -> list[type[DurableActor[Any]]]:
        """Those whose actors are a workflow each."""
        return [kind for kind in self.kinds if issubclass(kind, DurableActor)]

    @property
    def has_blocking(self) -> bool:
        """Whether an activity needs a thread."""
        return not all(inspect.iscoroutinefunction(function) for function in self.activities)


def load_actor_types(modules: Sequence[str], ours: Sequence[type[Any]] = ()) -> ActorTypes:
    """All actor types and activities that can be named in these modules, imported ones too.

    A module is looked for where Python looks, and at last in the current folder.

    Raises:
        Invalid: a module can't be imported or has no actor type, or a name is taken, maybe by one of `ours`.
    """
    names: dict[str, Any] = {kind.actor_type: kind for kind in ours}
    kinds: list[type[Any]] = []
    activities: dict[str, Callable[..., Any]] = {}
    for name in modules:
        found = vars(_import(name)).values()
        types = [one for one in found if _is_actor_type(one)]
        if not types:
            raise Invalid(
                f"GOATHERD_ACTORS names {name!r}, which has no actor type: a class with @actor or @sharded."
            )
        for kind in types:
            if _is_new(names, kind.actor_type, kind):
                kinds.append(kind)
        for one in found:
            defined = getattr(one, "__temporal_activity_definition", None)
            if defined is not None and defined.name:
                _is_new(activities, defined.name, one)
    return ActorTypes(tuple(kinds), tuple(activities.values()))


def _import(name: str) -> ModuleType:
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)  # Behind all others: an `api` folder there must not be taken for ours.
    try:
        return importlib.import_module(name)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise Invalid(
            f"GOATHERD_ACTORS names {name!r}, which can't be imported: {reason}. Is it installed, on "
            "PYTHONPATH or in the current folder?"
        ) from error


def _is_actor_type(one: object) -> bool:
    return (
        inspect.isclass(one)
        and issubclass(one, DurableActor | ShardedEntity)
        and "__temporal_workflow_definition" in vars(one)
    )


def _is_new(known: dict[str, Any], name: str, one: Any) -> bool:
    """Whether it was not there yet; it is now."""
    if name not in known:
        known[name] = one
        return True
    if (other := known[name]) is not one:
        raise Invalid(
            f"GOATHERD_ACTORS has two of the name {name!r}: {_full_name(other)} and {_full_name(one)}."
        )
    return False


def _full_name(one: Any) -> str:
    return f"{one.__module__}.{one.__qualname__}"
