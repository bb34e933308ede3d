"""The chat's figures, through HTTP, on a whole `goatherd up` of its own.

Both sides of every ratio run alternately on the same server in the same run; the median round counts.
"""

from __future__ import annotations

import asyncio
import statistics
import time

import psutil
from temporalio.client import Client

from activities.backends.model_host import ModelHost
from activities.ports import ChatRequest
from bench.chat import hot
from bench.chat.raw import QUEUE, Bare
from bench.chat.stack import TEXT, Stack, raw_worker, running
from bench.measure import Load, load, median, ratio
from goatherd.contracts.inference import ChatTurn, Generation
from goatherd.settings import Settings

CLIENTS, SESSIONS, POSTS, ROUNDS = 32, 64, 1_500, 5
FIRST_TOKENS = 15
SETTLE_S = 0.5  # torch's threads spin for a while after a call, on the cores that the other side needs
QUESTION = "What is the capital of France?"


async def main() -> None:
    async with running() as stack:
        print(f"up to ready: {stack.seconds:.1f} s (aim 15 or less)")
        _memory(stack.pid)
        await _posts(stack)
        await hot.measure(stack)
        await _reads(stack)
        await _first_token(stack)
        await _history(stack)


def _memory(pid: int) -> None:
    total = 0
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        mega = process.memory_full_info().pss / 1e6
        total += mega
        print(f"  {mega:7.0f} MB  {' '.join(process.cmdline())[-70:]}")
    print(f"idle stack, the model's worker included: {total:.0f} MB (aim: 700 without the model)\n")


async def _posts(stack: Stack) -> None:
    print(f"posts without a reply, {CLIENTS} clients over {SESSIONS} sessions, {ROUNDS} rounds of {POSTS}")
    client = await Client.connect(stack.temporal)
    raw, ours = [], []
    async with raw_worker(stack.temporal):
        bare = [
            await client.start_workflow(Bare.run, id=f"bare-{n}", task_queue=QUEUE) for n in range(SESSIONS)
        ]
        chats = [await stack.session() for _ in range(SESSIONS)]

        async def update(number: int) -> None:
            await bare[number % SESSIONS].execute_update(Bare.post, TEXT)

        async def post(number: int) -> None:
            await stack.post(chats[number % SESSIONS])

        for call in (update, post):
            await load(call, clients=CLIENTS, total=SESSIONS * 2)
        for _ in range(ROUNDS):
            raw.append(await load(update, clients=CLIENTS, total=POSTS))
            ours.append(await load(post, clients=CLIENTS, total=POSTS))
            print(f"  raw {raw[-1]}\n  ours{ours[-1]}")
    ratio("durable posts by HTTP against raw updates", median(ours), median(raw), 0.7)


async def _reads(stack: Stack) -> None:
    print(f"reads of one message, {CLIENTS} clients")
    http, session = stack.http, await stack.session()
    async with http.post(f"/chat/{session}/message", json={"content": TEXT, "reply": False}) as answer:
        message = (await answer.json())["id"]
    rounds: dict[str, list[Load]] = {"/healthz": [], f"/chat/{session}/message/{message}": []}

    for _ in range(3):
        for path, loads in rounds.items():

            async def get(_: int, path: str = path) -> None:
                async with http.get(path) as answer:
                    assert answer.status == 200
                    await answer.read()

            loads.append(await load(get, clients=CLIENTS, total=2_000))
    nothing, reads = (median(loads) for loads in rounds.values())
    print(f"  no-op {nothing}\n  read  {reads}")
    ratio("reads against a no-op GET", reads, nothing, 0.5)


async def _first_token(stack: Stack) -> None:
    print(f"first token, {FIRST_TOKENS} times each, alternately")
    settings = Settings()
    model = await ModelHost(settings).get(settings.model)
    direct, ours = [], []
    for number in range(FIRST_TOKENS + 1):
        turns = [ChatTurn(role="user", content=QUESTION)]
        started = time.perf_counter()
        stream = model.stream(ChatRequest(turns, Generation(max_tokens=8, temperature=0)))
        async for _ in stream:
            direct.append(time.perf_counter() - started)
            break
        await stream.aclose()  # type: ignore[attr-defined]
        session = await stack.session()
        body = {"content": QUESTION, "generation": {"max_tokens": 8, "temperature": 0}}
        await asyncio.sleep(SETTLE_S)
        started = time.perf_counter()
        headers = {"Accept": "text/event-stream"}
        first = True
        async with stack.http.post(f"/chat/{session}/message", json=body, headers=headers) as answer:
            async for line in answer.content:
                if first and line.startswith(b"event: message.delta"):
                    ours.append(time.perf_counter() - started)
                    first = False
                if line.startswith((b"event: message.completed", b"event: message.failed")):
                    break
        if number == 0:
            direct.clear()
            ours.clear()
    ours, direct = sorted(ours), sorted(direct)
    more = (statistics.median(ours) - statistics.median(direct)) * 1e3
    print(f"  direct {Load(0, direct).quantile(50):.0f} ms p50, {Load(0, direct).quantile(99):.0f} ms p99")
    print(f"  ours   {Load(0, ours).quantile(50):.0f} ms p50, {Load(0, ours).quantile(99):.0f} ms p99")
    missed = "" if more <= 60 else "   MISSED"
    print(f"  → more than the direct call, p50: {more:.0f} ms (aim 60 or less){missed}\n")


async def _history(stack: Stack) -> None:
    client = await Client.connect(stack.temporal)

    async def events(session: str) -> int:
        return len([event async for event in client.get_workflow_handle(session).fetch_history_events()])

    session = await stack.session()
    before = await events(session)
    for _ in range(20):
        await stack.post(session)
    stored = (await events(session) - before) / 20
    session = await stack.session()
    counts = []
    for _ in range(4):
        body = {"content": QUESTION, "generation": {"max_tokens": 8}}
        headers = {"Prefer": "wait=30"}
        async with stack.http.post(f"/chat/{session}/message", json=body, headers=headers) as answer:
            assert answer.status == 201
        await asyncio.sleep(SETTLE_S)
        counts.append(await events(session))
    replied = (counts[-1] - counts[0]) / 3
    print(
        f"history events a message: {stored:.1f} stored (aim 8 or less), {replied:.1f} with a reply (aim 16)"
    )


if __name__ == "__main__":
    asyncio.run(main())
