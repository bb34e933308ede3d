"""The actor that the tests of the synchronous testkit test.

A shop has its prices looked up, its orders packed by a child, and is paid at a bank.
"""

from __future__ import annotations

from dataclasses import field

from goatherd.actors import (
    Behavior,
    Context,
    Ref,
    Refused,
    Request,
    behavior,
    message,
    on,
    resume,
    stopped,
    unhandled,
)
from goatherd.actors.testkit import BehaviorTestKit, Piped, TestInbox


@message
class Price(Request[int]):
    item: str


@message
class Order(Request[str]):
    item: str


@message
class Pack:
    item: str


@message
class Pay(Request[bool]):
    amount: int


@message
class Paid:
    item: str
    ok: bool


@message
class Listed:
    prices: dict[str, int]


@message
class Unlisted:
    why: str


@message
class CountStock:
    pass


@message
class PackerGone:
    pass


@message
class Close:
    pass


Command = Price | Order | Paid | Listed | Unlisted | CountStock | PackerGone | Close
Shop = Behavior[Command]


async def read_prices(city: str) -> dict[str, int]:
    raise AssertionError("The kit runs no work.")


def unlisted(error: BaseException) -> Unlisted:
    return Unlisted(str(error))


@behavior("tests.kit.packer")
class Packer(Behavior[Pack]):
    pass


@behavior("tests.kit.opening")
class Opening(Behavior[Command]):
    """Has no prices yet."""

    bank: Ref[Pay]

    def on_start(self, ctx: Context[Command]) -> Shop | None:
        ctx.pipe_to_self(read_prices("Bern"), Listed, unlisted)
        return None

    def receive(self, ctx: Context[Command], message: Command) -> Shop | None:
        match message:
            case Listed(prices=prices):
                packer = ctx.spawn(Packer(), "packer", supervise=[on(OSError, resume)])
                ctx.watch_with(packer, PackerGone())
                ctx.timers.every("stock", CountStock(), "1h")
                ctx.unstash_all()
                return Open(self.bank, packer, prices)
            case Unlisted(why=why):
                ctx.log.error("no prices: %s", why)
                return stopped
            case _:
                ctx.stash()
        return None


@behavior("tests.kit.open")
class Open(Behavior[Command]):
    bank: Ref[Pay]
    packer: Ref[Pack]
    prices: dict[str, int]
    counted: int = 0
    waiting: dict[str, Ref[str]] = field(default_factory=dict)

    def receive(self, ctx: Context[Command], message: Command) -> Shop | None:
        match message:
            case Price(item=item):
                ctx.reply(message, self.prices[item])
            case Order(item=item) if item not in self.prices:
                ctx.refuse(message, Refused(f"There is no {item}."))
            case Order(item=item):
                self.waiting[item] = ctx.reply_to(message)
                ctx.ask(
                    self.bank,
                    Pay(self.prices[item]),
                    lambda ok: Paid(item, ok),
                    lambda error: Paid(item, False),
                    timeout="5s",
                )
            case Paid(item=item, ok=ok):
                if ok:
                    self.packer.tell(Pack(item))
                self.waiting.pop(item).tell("on its way" if ok else "not paid")
            case CountStock():
                self.counted += 1
            case PackerGone():
                return stopped
            case Close():
                ctx.timers.cancel("stock")
                ctx.unwatch(self.packer)
                ctx.stop(self.packer)
            case _:
                return unhandled
        return None


def open_shop(bank: TestInbox[Pay]) -> BehaviorTestKit[Command]:
    """One that has its prices, and whose first effects a test has no interest in."""
    kit: BehaviorTestKit[Command] = BehaviorTestKit(Opening(bank.ref), name="shop")
    kit.expect(Piped("read_prices")).succeed({"bell": 7})
    kit.effects()
    return kit
