"""Sharded entity types: many light actors in few workflows."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Any, ClassVar, TypeVar

from goatherd.actors._behavior import Behavior
from goatherd.actors._duration import Duration, seconds
from goatherd.actors._supervision import Supervised
from goatherd.actors.durable._definition import DurableActor, workflow_type
from goatherd.actors.durable._entities import Entities, escaped
from goatherd.actors.durable._host import Host
from goatherd.actors.durable._shard import Shard
from goatherd.contracts.model import Contract

Class = TypeVar("Class", bound="type[ShardedEntity]")


class ShardedEntity:
    """Base of sharded entity types: all their entities live in a fixed number of workflows, the shards.

    ```python
    @sharded("Cart", AddItem, Checkout, shards=4, passivate_after="2m")
    class Cart(ShardedEntity):
        def behavior(self, entity_id: str) -> Behavior[AddItem | Checkout]:
            return EmptyCart(entity_id)
    ```

    An entity begins with its first message. When it has had none for `passivate_after`, and nothing of it is
    under way, its state goes to the store, and comes back with its next message. It sees nothing of that, as
    of continue-as-new. One that has stopped, or failed, begins anew with its next message.
    """

    entity_type: ClassVar[str]
    actor_type: ClassVar[str]
    most_together: ClassVar[int] = 500
    idempotent: ClassVar[bool] = False
    journal: ClassVar[bool] = False
    """See `DurableActor`."""
    messages: ClassVar[dict[str, type[Any]]]
    shards: ClassVar[int]
    passivate_after_s: ClassVar[float | None]

    host: Host

    def behavior(self, entity_id: str) -> Behavior[Any] | Supervised[Any]:
        """What a new entity begins with."""
        raise NotImplementedError

    def asks_per_run(self) -> int:
        """After so many updates a shard continues as new. Temporal refuses more than 2,000."""
        return 1_000

    @classmethod
    def shard_of(cls, entity_id: str) -> str:
        """The workflow id of the shard that an entity lives in."""
        digest = blake2b(entity_id.encode(), digest_size=8).digest()
        return f"{cls.entity_type}-shard-{int.from_bytes(digest, 'big') % cls.shards}"

    @classmethod
    def address(cls, entity_id: str) -> str:
        """What `Context.ref` takes: the address of an entity, for other actors."""
        return f"{cls.shard_of(entity_id)}/{escaped(entity_id)}"


class _NoStart(Contract):
    pass


class _Root(DurableActor[_NoStart]):
    """A shard as its host sees it."""

    start_type = _NoStart

    def __init__(self, entity: ShardedEntity) -> None:
        self._entity = entity
        self.messages = entity.messages  # type: ignore[misc]
        self.idempotent = entity.idempotent  # type: ignore[misc]
        self.journal = entity.journal  # type: ignore[misc]

    def behavior(self, start: _NoStart) -> Behavior[Any]:
        return Shard(self._entity.entity_type, self._entity.passivate_after_s)

    def asks_per_run(self, start: _NoStart) -> int:
        return self._entity.asks_per_run()

    def describe(self, behavior: Behavior[Any]) -> str | None:
        if not isinstance(behavior, Shard):
            return None
        return f"{len(behavior.known)} of its entities in memory"


def sharded(
    name: str, *messages: type[Any], shards: int = 4, passivate_after: Duration | None = "2m"
) -> Callable[[Class], Class]:
    """Makes a workflow type, the name and `Shard`, of a `ShardedEntity`.

    Each message is a signal of its class's name, and each request an update too, with the entity's id as the
    second input.

    Args:
        shards: how many workflows there are, at most. It must not change while there are entities.
        passivate_after: None: entities stay in memory until they stop, and there is no store.

    Raises:
        TypeError: two messages have the same name, or a request does not say what its answer is.
        ValueError: the name can't be part of an address, or a number makes no sense.
    """
    if not name or any(sign in name for sign in "/#~$") or name != name.strip():
        raise ValueError(f"{name!r} can't be an entity type's name: no /, #, ~, $ or spaces around it.")
    if shards < 1:
        raise ValueError(f"There must be at least one shard, not {shards}.")
    passivate_after_s = None if passivate_after is None else seconds(passivate_after)
    if passivate_after_s == 0:
        raise ValueError("Entities need a positive time to be idle; None keeps them in memory.")

    def make(cls: Class) -> Class:
        cls.entity_type, cls.actor_type = name, f"{name}Shard"
        cls.shards, cls.passivate_after_s = shards, passivate_after_s
        return workflow_type(cls, name, messages, _host, _tell, _ask)

    return make


def _host(entity: ShardedEntity, start: Any, carried: Any) -> Host:
    return Host(
        _Root(entity),
        start,
        carried,
        lambda runtime: Entities(runtime, entity.entity_type, entity.behavior),
    )


def _tell(kind: type[Any]) -> Any:
    def tell(self: Any, message: Any, meta: Any = None) -> None:
        # By hand, the entity's id alone; from a program, with the message's id too.
        self.host.told(kind, message, {"entity": meta} if isinstance(meta, str) else meta)

    return tell


def _ask(kind: type[Any]) -> tuple[Any, Any]:
    async def ask(self: Any, message: Any, entity: Any = None) -> Any:
        return await self.host.asked(kind, message, entity)

    def check(self: Any, message: Any, entity: Any = None) -> None:
        self.host.check(kind, message, entity)

    return ask, check
