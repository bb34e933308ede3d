"""The one place where it is decided who may touch what.

Every resource has an owner. What belongs to somebody else does not exist for others: they get the same
`NotFound` as for an id that was never given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

from goatherd.errors import NotFound


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is asking."""

    id: str


class Owned(Protocol):
    """A resource with an owner."""

    @property
    def owner(self) -> str: ...


Resource = TypeVar("Resource", bound=Owned)


def require(principal: Principal, resource: Resource | None, name: str) -> Resource:
    """The resource, if there is one and it is the principal's; else `NotFound`, naming it."""
    if resource is None or resource.owner != principal.id:
        raise NotFound(f"There is no {name}. It may never have existed, or belong to somebody else.")
    return resource
