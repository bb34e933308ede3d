"""The same rules in plain asyncio and inside of a workflow, also of one that goes on to its next run all the
time: each test is one body, on three hosts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import field
from typing import Any
from uuid import uuid4

import pytest
from temporalio.testing import WorkflowEnvironment

from goatherd.actors import (
    ActorFailed,
    ActorStopped,
    AskTimeout,
    Behavior,
    ChildFailed,
    Context,
    PostStop,
    PreRestart,
    Ref,
    Request,
    Signal,
    Terminated,
    activity,
    behavior,
    message,
    on,
    pool,
    restart,
    restart_with_backoff,
    resume,
    stopped,
    unhandled,
)
from goatherd.actors.testkit import ActorTestKit, AnyKit, DurableTestKit
from goatherd.errors import Conflict, Invalid
from tests.actors.durable.accounts import Account, Deposit, OpenAccount, Total, Withdraw, double


@pytest.fixture(params=["plain", "durable", "moving"])
async def kit(request: pytest.FixtureRequest, temporal: WorkflowEnvironment) -> AsyncIterator[AnyKit]:
    if request.param == "plain":
        async with ActorTestKit() as plain:
            yield plain
        return
    asks_per_run = 2 if request.param == "moving" else 1_000
    async with DurableTestKit(
        temporal, actors=[Account], activities=[double], asks_per_run=asks_per_run
    ) as durable:
        yield durable


# -- an actor that tells of its life


@message
class Said:
    who: str
    what: str


@message
class End:
    pass


@message
class Fail:
    pass


@message
class Count(Request[int]):
    pass


@message
class Below(Request[Ref[Any]]):
    """Answered with the child's address."""


@message
class See:
    """Watch this one."""

    other: Ref[Any]


Life = End | Fail | Count | Below | See


@behavior("tests.same.node")
class Node(Behavior[Life]):
    """Has `depth` others below it, each the child of the one before."""

    to: Ref[Said]
    depth: int = 0
    count: int = 0
    handles_ends: bool = True

    def on_start(self, ctx: Context[Life]) -> Behavior[Life] | None:
        if self.depth:
            child = ctx.spawn(Node(self.to, self.depth - 1), "below")
            ctx.watch(child)
        return None

    def receive(self, ctx: Context[Life], message: Life) -> Behavior[Life] | None:
        match message:
            case End():
                return stopped
            case Fail():
                raise KeyError("broken")
            case Count():
                self.count += 1
                ctx.reply(message, self.count)
            case Below():
                child = ctx.child("below")
                assert child is not None
                ctx.reply(message, child)
            case See(other=other):
                ctx.watch(other)
        return None

    def on_signal(self, ctx: Context[Life], signal: Signal) -> Behavior[Life] | None:
        match signal:
            case PostStop() | PreRestart():
                self.to.tell(Said(ctx.name, type(signal).__name__))
            case ChildFailed(ref=ref):
                self.to.tell(Said(ctx.name, f"{ref.name} failed"))
            case Terminated(ref=ref):
                if not self.handles_ends:
                    return unhandled
                self.to.tell(Said(ctx.name, f"{ref.name} stopped"))
        return None


async def test_children_stop_first_and_watchers_know_last(kit: AnyKit) -> None:
    life = kit.probe("life")
    watcher = await kit.spawn(Node(life.ref), "watcher")
    root = await kit.spawn(Node(life.ref, depth=2), "root")
    await kit.tell(watcher, See(root))
    await kit.stop(root)
    for who in ("below", "below", "root"):
        await life.expect(Said(who, "PostStop"))
    await life.expect(Said("watcher", "root stopped"))
    await life.expect_nothing()


async def test_a_late_watch_tells_at_once(kit: AnyKit) -> None:
    life = kit.probe("life")
    watcher, other = await kit.spawn(Node(life.ref), "watcher"), await kit.spawn(Node(life.ref), "other")
    await kit.tell(other, End())
    await life.expect(Said("other", "PostStop"))
    await kit.tell(watcher, See(other))
    await life.expect(Said("watcher", "other stopped"))


async def test_an_end_that_is_not_handled_ends_the_watcher(kit: AnyKit) -> None:
    life = kit.probe("life")
    watcher = await kit.spawn(Node(life.ref, handles_ends=False), "watcher")
    other = await kit.spawn(Node(life.ref), "other")
    await kit.tell(watcher, See(other))
    await kit.tell(other, End())
    await life.expect(Said("other", "PostStop"))
    await life.expect(Said("watcher", "PostStop"))
    await life.expect_terminated(watcher)


async def test_a_failed_child_tells_its_parent_and_others_only_that_it_stopped(kit: AnyKit) -> None:
    life = kit.probe("life")
    root = await kit.spawn(Node(life.ref, depth=1), "root")
    watcher = await kit.spawn(Node(life.ref), "watcher")
    child = await kit.ask(root, Below())
    await kit.tell(watcher, See(child))
    await kit.tell(child, Fail())
    said = [await life.expect_type(Said) for _ in range(3)]
    assert said[0] == Said("below", "PostStop")
    assert sorted(said[1:], key=repr) == [Said("root", "below failed"), Said("watcher", "below stopped")]


async def test_a_restart_begins_anew_and_is_no_stop(kit: AnyKit) -> None:
    life = kit.probe("life")
    root = await kit.spawn(Node(life.ref, depth=1), "root", supervise=[on(KeyError, restart())])
    assert [await kit.ask(root, Count()) for _ in range(2)] == [1, 2]
    await kit.tell(root, Fail())
    await life.expect(Said("root", "PreRestart"))
    await life.expect(Said("below", "PostStop"))
    assert await kit.ask(root, Count()) == 1
    await life.expect_nothing()


async def test_messages_wait_while_it_backs_off(kit: AnyKit) -> None:
    life = kit.probe("life")
    rule = on(KeyError, restart_with_backoff("600ms", "10s", 0.0))
    node = await kit.spawn(Node(life.ref), "node", supervise=[rule])
    await kit.ask(node, Count())
    await kit.tell(node, Fail())
    await life.expect(Said("node", "PreRestart"))
    asking = asyncio.create_task(kit.ask(node, Count(), timeout="100ms"))
    await asyncio.sleep(0)
    await kit.advance("150ms")
    with pytest.raises(AskTimeout):
        await asking
    await kit.advance("700ms")
    assert await kit.ask(node, Count()) == 2  # What was asked in vain has waited too.


async def test_what_an_actor_raises_fails_its_asker(kit: AnyKit) -> None:
    account = await kit.spawn(Grumpy(), "grumpy")
    with pytest.raises(Conflict, match="Not today"):
        await kit.ask(account, Please("refuse"))
    with pytest.raises(ActorFailed, match="KeyError"):
        await kit.ask(account, Please("raise"))
    with pytest.raises(ActorStopped):
        await kit.ask(account, Please("again"))


@message
class Please(Request[str]):
    what: str


@behavior("tests.same.grumpy")
class Grumpy(Behavior[Please]):
    def receive(self, ctx: Context[Please], message: Please) -> Behavior[Please] | None:
        if message.what == "raise":
            raise KeyError(message.what)
        ctx.refuse(message, Conflict("Not today."))
        return None


# -- stash, timers, asks, work


@message
class Open:
    pass


@message
class Job:
    number: int


@message
class Ring:
    what: str


@message
class Set:
    key: str
    what: str
    after: str


@message
class Cancel:
    key: str


@message
class AskOther:
    other: Ref[Any]


@message
class Double:
    amount: int


@message
class Heard:
    what: str


def heard(answer: str) -> Heard:
    return Heard(answer)


def heard_error(error: Exception) -> Heard:
    return Heard(type(error).__name__)


def heard_number(number: int) -> Heard:
    return Heard(str(number))


Tasks = Open | Job | Ring | Set | Cancel | AskOther | Double | Heard


@behavior("tests.same.worker")
class Worker(Behavior[Tasks]):
    to: Ref[Any]
    is_open: bool = False
    rung: list[str] = field(default_factory=list)

    def receive(self, ctx: Context[Tasks], message: Tasks) -> Behavior[Tasks] | None:
        match message:
            case Open():
                self.is_open = True
                ctx.unstash_all()
            case Job():
                if self.is_open:
                    self.to.tell(message)
                else:
                    ctx.stash()
            case Set(key=key, what=what, after=after):
                ctx.timers.once(key, Ring(what), after)
            case Cancel(key=key):
                ctx.timers.cancel(key)
            case Ring() | Heard():
                self.to.tell(message)
            case AskOther(other=other):
                ctx.ask(other, Please("answer"), heard, heard_error, timeout="300ms")
            case Double(amount=amount):
                ctx.pipe_to_self(activity(double, amount), heard_number)
        return None


async def test_what_is_stashed_comes_in_its_order_before_what_waits(kit: AnyKit) -> None:
    to = kit.probe()
    worker = await kit.spawn(Worker(to.ref), "worker")
    for number in range(3):
        await kit.tell(worker, Job(number))
    await to.expect_nothing()
    await kit.tell(worker, Open())
    await kit.tell(worker, Job(3))
    for number in range(4):
        await to.expect(Job(number))


async def test_a_timer_takes_the_place_of_the_one_of_its_key(kit: AnyKit) -> None:
    to = kit.probe()
    worker = await kit.spawn(Worker(to.ref), "worker")
    await kit.tell(worker, Set("one", "old", "400ms"))
    await kit.tell(worker, Set("two", "never", "400ms"))
    await kit.tell(worker, Set("one", "new", "500ms"))
    await kit.tell(worker, Cancel("two"))
    await kit.advance("1s")
    await to.expect(Ring("new"))
    await to.expect_nothing()


async def test_an_ask_ends_with_an_answer_or_in_time(kit: AnyKit) -> None:
    to, other = kit.probe(), kit.probe()
    worker = await kit.spawn(Worker(to.ref), "worker")
    await kit.tell(worker, AskOther(other.ref))
    await other.expect(Please("answer"))
    other.reply("yes")
    await to.expect(Heard("yes"))
    await kit.tell(worker, AskOther(other.ref))
    await other.expect(Please("answer"))
    await kit.advance("400ms")
    await to.expect(Heard("AskTimeout"))
    await kit.tell(worker, AskOther(other.ref))
    await other.expect(Please("answer"))
    other.refuse(Conflict("No."))
    await to.expect(Heard("Conflict"))


async def test_an_ask_of_one_that_has_stopped_fails_at_once(kit: AnyKit) -> None:
    to = kit.probe()
    worker, other = await kit.spawn(Worker(to.ref), "worker"), await kit.spawn(Grumpy(), "other")
    await kit.stop(other)
    await kit.tell(worker, AskOther(other))
    await to.expect(Heard("ActorStopped"))


async def test_work_comes_back_as_a_message(kit: AnyKit) -> None:
    to = kit.probe()
    worker = await kit.spawn(Worker(to.ref), "worker")
    await kit.tell(worker, Double(21))
    await to.expect(Heard("42"))


# -- routers, actor types


async def test_a_pool_has_its_routees_take_turns(kit: AnyKit) -> None:
    router = await kit.spawn(pool(3, Counter()), "router")
    assert [await kit.ask(router, Count()) for _ in range(6)] == [1, 1, 1, 2, 2, 2]


@behavior("tests.same.counter")
class Counter(Behavior[Count]):
    count: int = 0

    def receive(self, ctx: Context[Count], message: Count) -> Behavior[Count] | None:
        self.count += 1
        ctx.reply(message, self.count)
        return None


async def test_an_actor_type_and_its_check(kit: AnyKit) -> None:
    account = await kit.start(Account, f"acct-{uuid4()}", OpenAccount(owner="me", total=3))
    assert await kit.ask(account, Deposit(4)) == 7
    with pytest.raises(Invalid, match="something"):
        await kit.ask(account, Deposit(0))
    with pytest.raises(Conflict, match="not enough"):
        await kit.ask(account, Withdraw(8))
    await kit.stop(account)
    with pytest.raises(ActorStopped):
        await kit.ask(account, Total())


async def test_a_request_may_be_made_of_the_answers_address(kit: AnyKit) -> None:
    parrot = await kit.spawn(Parrot(), "parrot")
    assert await kit.ask(parrot, hello) == "hello"


@message
class Speak:
    what: str
    to: Ref[str]


def hello(to: Ref[str]) -> Speak:
    return Speak("hello", to)


@behavior("tests.same.parrot")
class Parrot(Behavior[Speak]):
    def receive(self, ctx: Context[Speak], message: Speak) -> Behavior[Speak] | None:
        message.to.tell(message.what)
        return None


@message
class Reach(Request[str]):
    address: str
    start: bool = False


@behavior("tests.same.reacher")
class Reacher(Behavior[Reach]):
    def receive(self, ctx: Context[Reach], message: Reach) -> Behavior[Reach] | None:
        ref = (
            ctx.start(Account, message.address, OpenAccount()) if message.start else ctx.ref(message.address)
        )
        ctx.reply(message, ref.address)
        return None


async def reacher(kit: AnyKit) -> Ref[Reach]:
    return await kit.spawn(Reacher(), "reacher", supervise=[on(Invalid, resume)])


@pytest.mark.parametrize("address", ["acct/7", "acct#7", "acct~seven", "", "a/b/c", "Cart-shard-x/cart"])
async def test_what_nobody_can_have_is_no_address(kit: AnyKit, address: str) -> None:
    with pytest.raises(Invalid, match="is no address"):
        await kit.ask(await reacher(kit), Reach(address))


async def test_an_address_of_any_kind_is_one(kit: AnyKit) -> None:
    asking = await reacher(kit)
    for address in ("acct-7", "acct-7~0", "a/b#3", "a/b#3/c#4~1", "a/~5", "Cart-shard-12/cart%2F7~0"):
        assert await kit.ask(asking, Reach(address)) == address
    assert await kit.ask(asking, Reach(asking.address)) == asking.address


@pytest.mark.parametrize("actor_id", ["acct/7", "acct#7", "acct~7", "", " acct"])
async def test_a_sign_of_an_address_is_no_part_of_a_durable_id(kit: AnyKit, actor_id: str) -> None:
    with pytest.raises(Invalid, match="id"):
        await kit.start(Account, actor_id)
    with pytest.raises(Invalid, match="id"):
        await kit.ask(await reacher(kit), Reach(actor_id, start=True))


async def test_a_failed_expectation_says_what_came_instead(kit: AnyKit) -> None:
    to = kit.probe("to")
    worker = await kit.spawn(Worker(to.ref), "worker")
    await kit.tell(worker, Set("one", "this", "10ms"))
    await kit.advance("300ms")
    with pytest.raises(AssertionError, match=r"to expected Ring.*that.*but Ring.*this"):
        await to.expect(Ring("that"))
    await to.expect(Ring("this"))
