"""Actor types: what a workflow type is made of."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Generic, TypeVar, get_args, get_origin

from temporalio import workflow
from temporalio.common import RawValue

from goatherd.actors._behavior import Behavior
from goatherd.actors._message import Request, answer_type
from goatherd.actors._supervision import Supervised
from goatherd.actors.durable import _protocol as protocol
from goatherd.actors.durable._host import Host
from goatherd.contracts.model import Contract

Start = TypeVar("Start", bound=Contract)
Class = TypeVar("Class", bound=type[Any])


class DurableActor(Generic[Start]):
    """Base of actor types: one workflow type each, one workflow for each of its actors.

    ```python
    @actor("Account", Deposit, Balance)
    class Account(DurableActor[OpenAccount]):
        def behavior(self, start: OpenAccount) -> Behavior[Deposit | Balance]:
            return Open(owner=start.owner)
    ```

    The workflow's id is the actor's address. Its input is `Start`, all of whose fields need defaults if the
    actor is to be started by hand without one.
    """

    actor_type: ClassVar[str]
    messages: ClassVar[dict[str, type[Any]]]
    idempotent: ClassVar[bool] = False
    """Its behavior knows repeated requests by itself: one whose answer is not kept any more is given to it
    again. Else its asker is told that it was applied already."""
    most_together: ClassVar[int] = 500
    """Requests of one update, which the actor has to handle within Temporal's two seconds. Fewer, if their
    answers are large."""
    journal: ClassVar[bool] = False
    """Its event-sourced actors keep their events in the journal: its workers need `JournalActivities`. Else
    its history, and what its runs hand on, are all that they need."""
    start_type: ClassVar[type[Contract]]
    host: Host
    _details: str | None = None

    def behavior(self, start: Start) -> Behavior[Any] | Supervised[Any]:
        """What a new actor starts with. Not called when a run goes on from another."""
        raise NotImplementedError

    def asks_per_run(self, start: Start) -> int:
        """After so many updates the actor continues as new. Temporal refuses more than 2,000."""
        return 1_000

    def show(self, behavior: Behavior[Any]) -> None:
        """Called when the actors have had their turns, to show people how the root is: `describe` as the
        workflow's current details. Search attributes can be set here too."""
        details = self.describe(behavior)
        if details is not None and details != self._details:
            self._details = details
            workflow.set_current_details(details)

    def describe(self, behavior: Behavior[Any]) -> str | None:
        """What the Temporal UI shows as the workflow's current details: Markdown. None: nothing new."""
        return None

    def result(self, behavior: Behavior[Any]) -> Any:
        """The workflow's result, of the behavior that it stopped with."""
        return None


def actor(name: str, *messages: type[Any]) -> Callable[[Class], Class]:
    """Makes a workflow type of a `DurableActor`: each message is a signal of its class's name, and each
    request an update too. Queries can be added as in any workflow.

    Raises:
        TypeError: two messages have the same name, a request does not say what its answer is, or what the
            actor starts with is no `Contract`.
    """

    def make(cls: Class) -> Class:
        cls.actor_type = name
        cls.start_type = _start_type(cls)
        return workflow_type(cls, name, messages, Host, _tell, _ask)

    return make


def workflow_type(
    cls: Class,
    name: str,
    messages: Sequence[type[Any]],
    host: Callable[[Any, Any, Any], Host],
    tell: Callable[[type[Any]], Any],
    ask: Callable[[type[Any]], tuple[Any, Any]],
) -> Class:
    """Makes a workflow type of a class that has an `actor_type` and a `behavior`.

    Args:
        name: of the type, for errors.
        host: makes what runs it, of the workflow, its start and what it carries on.
        tell: makes the handler of a message's signal.
        ask: makes the handler of a request's update, and its validator.

    Raises:
        TypeError: two messages have the same name, or a request does not say what its answer is.
    """
    cls.messages = {}
    for kind in messages:
        if cls.messages.setdefault(kind.__name__, kind) is not kind:
            raise TypeError(f"{name} has two messages named {kind.__name__}.")
    _add_life(cls, host)
    for message_name, kind in cls.messages.items():
        handler = _own(cls, tell(kind), f"tell_{message_name}", message=Any, meta=Any, **{"return": None})
        setattr(cls, f"tell_{message_name}", workflow.signal(name=message_name)(handler))
        if issubclass(kind, Request):
            _add_update(cls, message_name, kind, *ask(kind))
    _add_system(cls)
    return workflow.defn(name=cls.actor_type)(cls)


def _start_type(cls: type[Any]) -> type[Contract]:
    for base in getattr(cls, "__orig_bases__", ()):
        if get_origin(base) is DurableActor:
            kind = get_args(base)[0]
            if not (inspect.isclass(kind) and issubclass(kind, Contract)):
                raise TypeError(
                    f"{cls.__name__} starts with {getattr(kind, '__name__', kind)}, which is no Contract. It "
                    "is the workflow's input: derive it from goatherd.contracts.model.Contract, and give "
                    "each field a default."
                )
            return kind
    raise TypeError(f"{cls.__name__} must be a DurableActor[...] of what it starts with.")


def _own(cls: type[Any], function: Any, attribute: str, **annotations: Any) -> Any:
    """Makes a function look as if it were written in the class: Temporal asks for that."""
    function.__qualname__ = f"{cls.__qualname__}.{attribute}"
    function.__name__ = attribute
    function.__module__ = cls.__module__
    function.__annotations__ = annotations
    return function


def _add_life(cls: type[Any], host: Callable[[Any, Any, Any], Host]) -> None:
    def __init__(self: Any, start: Any = None, carried: Any = None) -> None:
        self.host = host(self, start, carried)

    async def run(self: Any, start: Any = None, carried: Any = None) -> Any:
        return await self.host.live()

    # Untyped, as Temporal ignores the types of all inputs when one is left out; the host reads them.
    inputs = {"start": Any, "carried": Any}
    cls.__init__ = workflow.init(_own(cls, __init__, "__init__", **inputs))
    cls.run = workflow.run(_own(cls, run, "run", **inputs, **{"return": Any}))


def _tell(kind: type[Any]) -> Any:
    def tell(self: Any, message: Any, meta: Any = None) -> None:
        self.host.told(kind, message, meta)

    return tell


def _ask(kind: type[Any]) -> tuple[Any, Any]:
    async def ask(self: Any, message: Any) -> Any:
        return await self.host.asked(kind, message)

    def check(self: Any, message: Any) -> None:
        self.host.check(kind, message)

    return ask, check


def _add_update(cls: type[Any], name: str, kind: type[Any], ask: Any, check: Any) -> None:
    inputs = dict.fromkeys([*inspect.signature(ask).parameters][1:], Any)
    _own(cls, ask, f"ask_{name}", **inputs, **{"return": answer_type(kind)})
    _own(cls, check, f"check_{name}", **inputs, **{"return": None})
    update = workflow.update(name=name)(ask)
    update.validator(check)
    setattr(cls, f"ask_{name}", update)


def _add_system(cls: type[Any]) -> None:
    def deliver_one(self: Any, envelope: Any) -> None:
        self.host.delivered(envelope)

    def answer(self: Any, envelope: Any) -> None:
        self.host.delivered(envelope)

    def watch(self: Any, watching: Any) -> None:
        self.host.watched(watching)

    def unwatch(self: Any, watching: Any) -> None:
        self.host.unwatched(watching)

    def terminated(self: Any, watching: Any) -> None:
        self.host.terminated(watching)

    def several(self: Any, signals: Any) -> None:
        for signal in signals.signals:
            self.host.signalled(signal)

    def stop(self: Any) -> None:
        self.host.stop()

    async def deliver(self: Any, delivery: Any) -> Any:
        return await self.host.deliver(delivery)

    def check_deliver(self: Any, delivery: Any) -> None:
        self.host.check_delivery()

    async def collect(self: Any, collection: Any) -> Any:
        return await self.host.collect(collection)

    def view(self: Any) -> Any:
        return self.host.view()

    none = {"return": None}
    for signal_name, function, inputs in (
        (protocol.DELIVER, deliver_one, {"envelope": protocol.Envelope}),
        (protocol.ANSWER, answer, {"envelope": protocol.Envelope}),
        (protocol.WATCH, watch, {"watching": protocol.Watching}),
        (protocol.UNWATCH, unwatch, {"watching": protocol.Watching}),
        (protocol.TERMINATED, terminated, {"watching": protocol.Watching}),
        (protocol.SEVERAL, several, {"signals": protocol.Signals}),
        (protocol.STOP, stop, {}),
    ):
        attribute = f"on_{signal_name.replace('.', '_')}"
        _own(cls, function, attribute, **inputs, **none)
        setattr(cls, attribute, workflow.signal(name=signal_name)(function))

    def stray(self: Any, name: str, inputs: Any) -> None:
        self.host.stray(name, inputs)

    _own(cls, stray, "on_stray", name=str, inputs=Sequence[RawValue], **none)
    cls.on_stray = workflow.signal(dynamic=True)(stray)
    _own(cls, deliver, "deliver", delivery=protocol.Delivery, **{"return": protocol.Outcomes})
    _own(cls, check_deliver, "check_deliver", delivery=protocol.Delivery, **none)
    cls.deliver = workflow.update(name=protocol.DELIVER)(deliver)
    cls.deliver.validator(check_deliver)
    _own(cls, collect, "collect", collection=protocol.Collection, **{"return": protocol.Outcomes})
    cls.collect = workflow.update(name=protocol.COLLECT)(collect)
    _own(cls, view, "view", **{"return": protocol.View})
    cls.view = workflow.query(name=protocol.VIEW)(view)
