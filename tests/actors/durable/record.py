"""Records the histories that test_replay replays: `python -m tests.actors.durable.record`.

Record anew only what is not released yet: a history that no longer replays is an actor that would break.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from goatherd.actors.durable import ActorSystem
from goatherd.errors import GoatherdError
from goatherd.leaving import leave
from tests.actors.durable.accounts import (
    RELEASES,
    Account,
    AskHelper,
    Break,
    Close,
    Convert,
    Credit,
    Deposit,
    Later,
    OpenAccount,
    Total,
    Transfer,
    WatchOther,
    Withdraw,
)
from tests.actors.durable.conftest import account_worker
from tests.actors.durable.offices import (
    Fetch,
    Hire,
    Hold,
    Leave,
    Log,
    Note,
    OfficeActor,
    OpenOffice,
    Pay,
    Release,
    Remind,
    Repeat,
    Try,
    Whisper,
    Work,
)
from tests.actors.durable.watching import until_told
from tests.histories import record
from tests.temporal import temporal_server

HISTORIES = Path(__file__).parent / "histories"


async def account(system: ActorSystem) -> str:
    """Every message that an account takes, refusals, an id that comes twice, an end by failing."""
    one = system.entity(Account, "account")
    other, lost = system.entity(Account, f"acct-{uuid4()}"), system.entity(Account, f"acct-{uuid4()}")
    await other.start(OpenAccount())
    await lost.start(OpenAccount())
    await one.ask(Deposit(50), start=OpenAccount(owner="me", total=1))
    await one.ask(Deposit(1), id="twice")
    await one.ask(Deposit(1), id="twice")
    await one.tell(Credit(2))
    for refused in (Deposit(0), Withdraw(10_000)):
        with suppress(GoatherdError):
            await one.ask(refused)
    await one.ask(Convert(3))
    await one.ask(AskHelper(4))
    await one.ask(Later(0.1))
    await one.ask(Transfer(other.id, 5))
    await one.ask(WatchOther(lost.id))
    await lost.ask(Close())
    await until_told(one, lost.id)
    with suppress(GoatherdError):
        await one.ask(Transfer("acct-nobody", 5))
    with suppress(GoatherdError):
        await one.ask(Break())
    return one.id


async def batch(system: ActorSystem) -> str:
    """Many at once, some of them slow, and some refused."""
    one = system.entity(Account, "batch")
    await one.start(OpenAccount())
    asks = [one.ask(Later(0.1 + n / 50)) if n % 5 == 0 else one.ask(Deposit(n % 7)) for n in range(40)]
    await asyncio.gather(*asks, return_exceptions=True)
    await one.ask(Close())
    return one.id


async def office(system: ActorSystem) -> str:
    """All that runs hand on: a stash, timers, restarts, a child in backoff, an activity, a durable child."""
    one = system.entity(OfficeActor, "office")
    await one.start(OpenOffice(asks_per_run=4))
    held = [asyncio.create_task(one.ask(Hold(text))) for text in "ab"]
    await one.ask(Remind("soon", 0.2))
    await one.ask(Remind("later", 60.0))
    await one.ask(Repeat(0.1))
    fetched = asyncio.create_task(one.ask(Fetch("record")))
    for fail in (Work(fail=True), Try(fail=True)):
        with suppress(GoatherdError):
            await one.ask(fail)
    tried = asyncio.create_task(one.ask(Try()))
    put_off = asyncio.create_task(one.ask(Fetch("record")))
    await one.ask(Note("n"))
    RELEASES.setdefault("record", asyncio.Event()).set()
    await asyncio.gather(fetched, put_off, tried)
    await one.ask(Hire("office-child"))
    await one.ask(Pay("office-child", 3))
    await one.tell(Whisper("w"))
    await one.ask(Release())
    await asyncio.gather(*held)
    for _ in range(3):
        with suppress(GoatherdError):
            await one.ask(Work(fail=True))
    for _ in range(6):
        await one.ask(Log())
    await system.entity(Account, "office-child").ask(Total())
    await one.ask(Leave())
    await system.client.get_workflow_handle("office-child").result()
    return one.id


async def child(system: ActorSystem) -> str:
    """The durable child of `office`."""
    return "office-child"


async def main() -> None:
    HISTORIES.mkdir(exist_ok=True)
    for old in HISTORIES.glob("*.json"):
        old.unlink()
    async with temporal_server() as environment:
        system = ActorSystem(environment.client, task_queue="record")
        async with account_worker(environment.client, system.task_queue):
            for scenario in (account, batch, office, child):
                actor_id = await scenario(system)
                await record(system.client, actor_id, HISTORIES, scenario.__name__)


if __name__ == "__main__":
    asyncio.run(main())
    leave()  # Temporal's threads may abort an interpreter that ends.
