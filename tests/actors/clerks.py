"""Who works behind routers in tests, and short words for them."""

from __future__ import annotations

from typing import Any

from goatherd.actors import (
    Behavior,
    Context,
    Ref,
    Register,
    Request,
    ServiceKey,
    behavior,
    message,
    on,
    restart,
    stopped,
)

from .herd import Fail
from .manual import World


@message
class Name(Request[str]):
    """Who are you?"""


@message
class Leave:
    pass


@message
class Parcel(Request[str]):
    """Answered with the name of who took it."""

    owner: str

    def key(self) -> str:
        return self.owner


@behavior("tests.routers.clerk")
class Clerk(Behavior[Name | Leave | Parcel | Fail]):
    """Says its name, and counts."""

    taken: int = 0

    def receive(
        self, ctx: Context[Name | Leave | Parcel | Fail], message: Name | Leave | Parcel | Fail
    ) -> Behavior[Name | Leave | Parcel | Fail] | None:
        self.taken += 1
        match message:
            case Name() | Parcel():
                ctx.reply(message, ctx.name)
            case Leave():
                return stopped
            case Fail():
                raise ValueError("told to fail")
        return None


KEY = ServiceKey[Any]("clerks", "Clerk")


def names_of(world: World, router: Ref[Any], asks: int) -> list[str]:
    return [world.ask(router, Name()).value for _ in range(asks)]


def children_of(world: World, router: Ref[Any]) -> list[Ref[Any]]:
    return [child.ref for child in world.cell(router).children.values()]


def clerks(world: World, *names: str) -> list[Ref[Any]]:
    hired = [world.spawn(Clerk(), name) for name in names]
    world.tell(world.runtime.receptionist, *(Register(KEY, clerk) for clerk in hired))
    return hired


def without_key(message: object) -> str:
    raise LookupError("no key")


def restarts() -> list[Any]:
    return [on(LookupError, restart())]


def owner_of(parcel: Parcel) -> str:
    return parcel.owner


def key_unless_fail(message: object) -> str:
    if isinstance(message, Fail):
        raise LookupError("no key")
    return type(message).__name__
