"""The inside of `DurableTestKit`: a durable actor whose children are the actors and probes of one test.

All that the kit sends is JSON already, written with its types: the test's classes are not in the messages.
"""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any

from goatherd.actors._behavior import Behavior, behavior, stopped
from goatherd.actors._context import Context
from goatherd.actors._fields import AnySupervised, as_message
from goatherd.actors._message import Request, message
from goatherd.actors._ref import Ref, resolving
from goatherd.actors._signals import Signal, Terminated
from goatherd.actors._wire import Json, adapter, read, read_error, read_name, write, write_error
from goatherd.actors.durable._definition import DurableActor, actor
from goatherd.contracts.model import Contract
from goatherd.errors import GoatherdError

ANSWER = "testkit~answer"
"""In a message that is made of the answer's address: the place of it."""


class Test(Contract):
    """What a host starts with. `asks_per_run`: after so many it continues as new."""

    __test__ = False

    asks_per_run: int = 1_000


# -- what the kit has done


@message
class Spawn(Request[str]):
    """Answered with the actor's address. `module`: of its behavior, which is registered there."""

    name: str
    module: str
    one: Json
    mailbox: int | None = None
    stash: int | None = None


@message
class SpawnProbe(Request[None]):
    name: str
    address: str


@message
class Tell(Request[None]):
    to: str
    message: Json


@message
class Ask(Request[Json]):
    to: str
    request: Json
    timeout_s: float


@message
class Stop(Request[None]):
    """Answered when the actor has stopped."""

    address: str


@message
class Pass(Request[None]):
    """Answered when so much time has passed here, and all is done that was due by then."""

    duration_s: float


@message
class Watch(Request[None]):
    probe: str
    watched: str


@message
class Fetch(Request[Json]):
    """Answered with what has come to a probe since the last time; with nothing after `patience_s`."""

    probe: str
    patience_s: float


@message
class Answer(Request[None]):
    """A probe answers a request that it got."""

    probe: str
    number: int
    answer: Json = None
    error: Json = None


# -- inside


@message
class _Passed:
    asker: Ref[None]


@message
class _FetchHere:
    patience_s: float
    asker: Ref[Json]


@message
class _WatchHere:
    watched: Ref[Any]


@message
class _AnswerHere:
    number: int
    answer: Json
    error: Json


@message
class _Impatient:
    pass


@message
class _Answered:
    value: Annotated[Any, as_message]


@message
class _Failed:
    error: Json


def _failed(error: Exception) -> _Failed:
    return _Failed(write_error(error))


Commands = Spawn | SpawnProbe | Tell | Ask | Stop | Pass | Watch | Fetch | Answer | _Passed


@behavior("goatherd.testkit.guardian")
class Guardian(Behavior[Commands]):
    """The root: parent of what a test spawns."""

    waiting: int = 0

    def receive(self, ctx: Context[Commands], message: Commands) -> Behavior[Commands] | None:
        match message:
            case Spawn():
                ctx.reply(message, self._spawn(ctx, message).address)
            case SpawnProbe(name=name, address=address):
                runtime, cell = ctx._cell.runtime, ctx._cell
                runtime.make(cell, ProbeActor(), name, address=address)
                ctx.reply(message, None)
            case Tell(to=to, message=told):
                ctx.ref(to).tell(read(told))
                ctx.reply(message, None)
            case Ask(to=to, request=request, timeout_s=timeout_s):
                ctx.spawn(Asker(to, request, timeout_s, ctx.reply_to(message)))
            case Stop(address=address):
                ref = ctx.ref(address)
                ctx.spawn(Mourner(ref, ctx.reply_to(message)))
                ctx.stop(ref)
            case Pass(duration_s=duration_s):
                self.waiting += 1
                ctx.timers.once(f"pass {self.waiting}", _Passed(ctx.reply_to(message)), duration_s)
            case _Passed(asker=asker):
                asker.tell(None)
            case Watch(probe=probe, watched=watched):
                ctx.ref(probe).tell(_WatchHere(ctx.ref(watched)))
                ctx.reply(message, None)
            case Fetch(probe=probe, patience_s=patience_s):
                ctx.ref(probe).tell(_FetchHere(patience_s, ctx.reply_to(message)))
            case Answer(probe=probe, number=number, answer=answer, error=error):
                ctx.ref(probe).tell(_AnswerHere(number, answer, error))
                ctx.reply(message, None)
        return None

    def _spawn(self, ctx: Context[Commands], wanted: Spawn) -> Ref[Any]:
        read_name(f"{wanted.module}:__name__")  # A behavior is known once its module is.
        one = adapter(AnySupervised).validate_python(wanted.one)
        return ctx.spawn(one, wanted.name, mailbox=wanted.mailbox, stash=wanted.stash)


@behavior("goatherd.testkit.asker")
class Asker(Behavior[_Answered | _Failed]):
    """Asks once, for the test."""

    to: str
    request: Json
    timeout_s: float
    asker: Ref[Json]

    def on_start(self, ctx: Context[_Answered | _Failed]) -> Behavior[_Answered | _Failed] | None:
        ref = ctx.ref(self.to)
        try:
            if ANSWER in str(self.request):
                ctx.ask(ref, lambda to: self._made(ctx, to), _Answered, _failed, timeout=self.timeout_s)
            else:
                request = read(self.request)
                cell = ctx._cell.runtime.cell(ref)
                if cell is not None:
                    cell.behavior.check(request)
                ctx.ask(ref, request, _Answered, _failed, timeout=self.timeout_s)
        except GoatherdError as error:
            self.asker.fail(error)
            return stopped
        return None

    def _made(self, ctx: Context[Any], to: Ref[Any]) -> Any:
        with resolving(lambda address: to if address == ANSWER else ctx.ref(address)):
            return read(self.request)

    def receive(
        self, ctx: Context[_Answered | _Failed], message: _Answered | _Failed
    ) -> Behavior[_Answered | _Failed] | None:
        if isinstance(message, _Answered):
            self.asker.tell(write(message.value))
        else:
            self.asker.fail(read_error(message.error))
        return stopped


@behavior("goatherd.testkit.mourner")
class Mourner(Behavior[Any]):
    """Says when an actor has stopped."""

    watched: Ref[Any]
    asker: Ref[None]

    def on_start(self, ctx: Context[Any]) -> Behavior[Any] | None:
        ctx.watch(self.watched)
        return None

    def on_signal(self, ctx: Context[Any], signal: Signal) -> Behavior[Any] | None:
        if isinstance(signal, Terminated):
            self.asker.tell(None)
            return stopped
        return None


@behavior("goatherd.testkit.probe")
class ProbeActor(Behavior[Any]):
    """Keeps what comes until the test fetches it, and who asked until the test answers."""

    letters: list[Json] = field(default_factory=list)
    terminated: list[str] = field(default_factory=list)
    askers: dict[int, Ref[Any]] = field(default_factory=dict)
    fetcher: Ref[Json] | None = None
    count: int = 0

    def receive(self, ctx: Context[Any], message: Any) -> Behavior[Any] | None:
        match message:
            case _FetchHere(patience_s=patience_s, asker=asker):
                self.fetcher = asker
                ctx.timers.once("patience", _Impatient(), patience_s)
                self._give(ctx)
            case _Impatient():
                self._give(ctx, anything=True)
            case _WatchHere(watched=watched):
                ctx.watch(watched)
            case _AnswerHere(number=number, answer=answer, error=error):
                asker = self.askers.pop(number)
                if error is not None:
                    asker.fail(read_error(error))
                else:
                    asker.tell(read(answer))
            case _:
                self.count += 1
                is_asked = isinstance(message, Request)
                if is_asked:
                    self.askers[self.count] = ctx.reply_to(message)
                self.letters.append({"number": self.count, "message": write(message), "is_asked": is_asked})
                self._give(ctx)
        return None

    def on_signal(self, ctx: Context[Any], signal: Signal) -> Behavior[Any] | None:
        if isinstance(signal, Terminated):
            self.terminated.append(signal.ref.address)
            self._give(ctx)
        return None

    def _give(self, ctx: Context[Any], *, anything: bool = False) -> None:
        if self.fetcher is None or not (anything or self.letters or self.terminated):
            return
        self.fetcher.tell({"letters": self.letters, "terminated": self.terminated})
        self.letters, self.terminated, self.fetcher = [], [], None
        ctx.timers.cancel("patience")


@actor("GoatherdTest", Spawn, SpawnProbe, Tell, Ask, Stop, Pass, Watch, Fetch, Answer)
class TestHost(DurableActor[Test]):
    """The workflow."""

    __test__ = False

    def behavior(self, start: Test) -> Behavior[Commands]:
        return Guardian()

    def asks_per_run(self, start: Test) -> int:
        return start.asks_per_run
