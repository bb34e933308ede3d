"""Addresses of actors: typed, comparable, and the only way to reach one."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Generic, Self, TypeVar

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from goatherd.errors import GoatherdError

M_contra = TypeVar("M_contra", contravariant=True)
Answer = TypeVar("Answer")


class Ref(Generic[M_contra]):
    """The address of an actor that takes messages of type `M_contra`.

    Two refs are equal if their addresses are. An address is never used again: an actor that takes the name
    of one that has stopped has another.
    """

    __slots__ = ("address",)

    def __init__(self, address: str) -> None:
        self.address = address

    def tell(self, message: M_contra) -> None:
        """Sends a message: at most once, in the order of each sender. To who has stopped: a dead letter."""
        raise NotImplementedError

    def send(self, message: Any, reply_to: Ref[Any] | None) -> None:
        """`tell`, with the address that an answer goes to."""
        raise NotImplementedError

    def fail(self, error: GoatherdError) -> None:
        """Answers an ask with an error. Of an actor's own address: a dead letter."""
        raise NotImplementedError

    @property
    def name(self) -> str:
        """The last part of the address, without its number."""
        return self.address.rpartition("/")[2].partition("#")[0]

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ref) and other.address == self.address

    def __hash__(self) -> int:
        return hash(self.address)

    def __repr__(self) -> str:
        return f"<{self.address}>"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """A ref is its address on the wire, and becomes one again in the system that reads it."""
        return core_schema.json_or_python_schema(
            json_schema=core_schema.no_info_after_validator_function(resolve, core_schema.str_schema()),
            python_schema=core_schema.union_schema(
                [
                    core_schema.is_instance_schema(Ref),
                    core_schema.no_info_after_validator_function(resolve, core_schema.str_schema()),
                ]
            ),
            serialization=core_schema.plain_serializer_function_ser_schema(_address, when_used="json"),
        )


Resolver = Callable[[str], Ref[Any]]
_resolver: ContextVar[Resolver | None] = ContextVar("goatherd_actor_refs", default=None)


def resolve(address: str) -> Ref[Any]:
    """The ref of an address, in the system that is reading right now.

    Raises:
        ValueError: nobody is: the address was read outside of an actor system.
    """
    resolver = _resolver.get()
    if resolver is None:
        raise ValueError(f"The address {address!r} can be read inside of an actor system only.")
    return resolver(address)


class resolving:
    """`with resolving(system.resolve): ...`: what is read inside has its refs from there."""

    __slots__ = ("_resolver", "_token")

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    def __enter__(self) -> None:
        self._token = _resolver.set(self._resolver)

    def __exit__(self, *_: object) -> None:
        _resolver.reset(self._token)


def _address(ref: Ref[Any]) -> str:
    return ref.address


class Nobody(Ref[Any]):
    """Where the answers go that nobody waits for."""

    __slots__ = ()

    def tell(self, message: Any) -> None:
        pass

    def send(self, message: Any, reply_to: Ref[Any] | None) -> None:
        pass

    def fail(self, error: GoatherdError) -> None:
        pass


nobody = Nobody("nobody")
