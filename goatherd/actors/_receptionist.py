"""The receptionist: who offers a service now, for actors that have no address of one.

There is one in each runtime, an actor like any other, started when it is first asked for. One for a whole
cluster has its place beside it: the same messages, another ref.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from goatherd.actors._behavior import Behavior, behavior, unhandled
from goatherd.actors._context import Context
from goatherd.actors._message import Request, message
from goatherd.actors._ref import Ref
from goatherd.actors._signals import Signal, Terminated

M = TypeVar("M")

RECEPTIONIST = "$receptionist"
"""Its name: no other actor may have one with a dollar sign."""


@dataclass(frozen=True)  # With slots, Python 3.11 can't make a `ServiceKey[M](...)`.
class ServiceKey(Generic[M]):
    """What a service is found by: a name, and the protocol that all who offer it understand.

    The type checker knows the protocol as `M`; `protocol` names it where types are gone. Keys are equal if
    both are.

    Raises:
        ValueError: a part is empty, or there is an @ in the protocol's name.
    """

    id: str
    protocol: str

    def __post_init__(self) -> None:
        if not self.id or not self.protocol or "@" in self.protocol:
            raise ValueError(
                f"A service key needs an id, and a protocol without @: not {self.id!r}, {self.protocol!r}."
            )

    def __str__(self) -> str:
        return f"{self.id}@{self.protocol}"


@message
class Listing(Generic[M]):
    """Who offers a service, in the order of their registration."""

    key: ServiceKey[M]
    refs: tuple[Ref[M], ...]


@message
class Registered(Generic[M]):
    """Answers `Register`."""

    key: ServiceKey[M]
    ref: Ref[M]


@message
class Deregistered(Generic[M]):
    """Answers `Deregister`."""

    key: ServiceKey[M]
    ref: Ref[M]


class ReceptionistMessage:
    """Base of what the receptionist takes."""

    # A base and no union: in place of a `Register[Any]`, the type checker would take a key and a ref that
    # don't belong together.
    __slots__ = ()


@message
class Register(ReceptionistMessage, Request[Registered[M]], Generic[M]):
    """`ref` offers the service, until it stops. Twice is once. May be told or asked."""

    key: ServiceKey[M]
    ref: Ref[M]


@message
class Deregister(ReceptionistMessage, Request[Deregistered[M]], Generic[M]):
    """`ref` does not offer the service any more. May be told or asked, and of one that never did."""

    key: ServiceKey[M]
    ref: Ref[M]


@message
class Find(ReceptionistMessage, Request[Listing[M]], Generic[M]):
    """Who offers the service now?"""

    key: ServiceKey[M]


@message
class Subscribe(ReceptionistMessage, Generic[M]):
    """`subscriber` gets the listing as it is, and again whenever it has changed, until it stops."""

    key: ServiceKey[M]
    subscriber: Ref[Listing[M]]


@dataclass(slots=True)
class Service:
    """What the receptionist knows of one key: who offers it and who wants to know, by address, in order."""

    key: ServiceKey[Any]
    refs: dict[str, Ref[Any]] = field(default_factory=dict)
    subscribers: dict[str, Ref[Any]] = field(default_factory=dict)

    @property
    def listing(self) -> Listing[Any]:
        return Listing(self.key, tuple(self.refs.values()))

    def publish(self) -> None:
        listing = self.listing
        for subscriber in self.subscribers.values():
            subscriber.tell(listing)


@behavior("goatherd.receptionist")
class Receptionist(Behavior[ReceptionistMessage]):
    """Watches all that it knows, and forgets who has stopped."""

    services: dict[str, Service] = field(default_factory=dict)

    def receive(
        self, ctx: Context[ReceptionistMessage], message: ReceptionistMessage
    ) -> Behavior[ReceptionistMessage] | None:
        match message:
            case Register(key=key, ref=ref):
                self._register(ctx, key, ref)
                ctx.reply(message, Registered(key, ref))
            case Deregister(key=key, ref=ref):
                self._deregister(ctx, key, ref)
                ctx.reply(message, Deregistered(key, ref))
            case Find(key=key):
                service = self.services.get(str(key))
                ctx.reply(message, Listing(key, ()) if service is None else service.listing)
            case Subscribe(key=key, subscriber=subscriber):
                service = self._service(key)
                service.subscribers[subscriber.address] = subscriber
                ctx.watch(subscriber)
                subscriber.tell(service.listing)
            case _:
                return unhandled
        return None

    def on_signal(
        self, ctx: Context[ReceptionistMessage], signal: Signal
    ) -> Behavior[ReceptionistMessage] | None:
        if not isinstance(signal, Terminated):
            return unhandled
        # All of its addresses at once, subscribers first: who is gone must not be told that it is.
        gone = _actor(signal.ref.address)
        for service in self.services.values():
            _drop(service.subscribers, gone)
        for service in list(self.services.values()):
            if _drop(service.refs, gone):
                service.publish()
            self._forget_empty(service)
        return None

    def _service(self, key: ServiceKey[Any]) -> Service:
        return self.services.setdefault(str(key), Service(key))

    def _register(self, ctx: Context[Any], key: ServiceKey[Any], ref: Ref[Any]) -> None:
        service = self._service(key)
        if ref.address in service.refs:
            return
        service.refs[ref.address] = ref
        ctx.watch(ref)
        service.publish()

    def _deregister(self, ctx: Context[Any], key: ServiceKey[Any], ref: Ref[Any]) -> None:
        service = self.services.get(str(key))
        if service is None or service.refs.pop(ref.address, None) is None:
            return
        service.publish()
        self._forget_empty(service)
        if not self._knows(ref.address):
            ctx.unwatch(ref)

    def _forget_empty(self, service: Service) -> None:
        if not service.refs and not service.subscribers:
            self.services.pop(str(service.key), None)

    def _knows(self, address: str) -> bool:
        return any(
            address in service.refs or address in service.subscribers for service in self.services.values()
        )


def _drop(known: dict[str, Ref[Any]], actor: str) -> bool:
    """Forgets all addresses of an actor; whether there were any."""
    dropped = [address for address in known if _actor(address) == actor]
    for address in dropped:
        del known[address]
    return bool(dropped)


def _actor(address: str) -> str:
    """Whose address it is: an adapter's is its actor's, and a tilde with a number."""
    actor, tilde, number = address.rpartition("~")
    return actor if tilde and number.isdigit() else address
