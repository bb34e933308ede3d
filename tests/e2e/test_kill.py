"""Any process may be killed at any moment, and nothing that was answered is lost, doubled or out of order."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from pymongo import AsyncMongoClient
from temporalio.client import Client

from goatherd.embedded._ports import any_free
from tests.e2e.conversation import (
    PATIENCE_S,
    Json,
    SseReader,
    Talk,
    WsReader,
    check,
    live_through,
    scripted_reply,
)
from tests.e2e.stack import Up, frozen, running_beside, running_up, status_of, until_ready
from tests.embedded.waiting import gone, is_running
from tests.servers import program
from tests.temporal import eventually

API, ACTORS, INFERENCE = ("goatherd", "api"), ("goatherd", "actors"), ("goatherd", "inference")
TEMPORAL, STORE = ("start-dev",), ("secantusd",)
ALL = (API, ACTORS, INFERENCE, TEMPORAL, STORE)

ASK_TIMEOUT_S = 3.0
TAKEN_OVER_WITHIN_S = 15.0
LONG = "[[words=200 delay_ms=20]]"

log = logging.getLogger(__name__)


@pytest.fixture(scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Up]:
    async with running_up(tmp_path_factory.mktemp("stack") / "data", any_free()) as running:
        await running.ready()
        yield running


@pytest.fixture
async def up(shared: Up) -> Up:
    """One `goatherd up` for all, complete and ready again after what the test before has done to it."""
    await eventually(lambda: _complete(shared), within_s=PATIENCE_S)
    return shared


@pytest.fixture
async def http(up: Up) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=up.url, timeout=30) as client:
        await until_ready(client)
        yield client


async def _complete(up: Up) -> bool:
    return all(up.child(*words) is not None for words in ALL)


def _note(what: str, recovery: object) -> None:
    """For who wants to see how long it took: `pytest --log-cli-level=info`."""
    log.info("%s: %s", what, recovery)


# -- kill -9


@pytest.mark.parametrize("words", ALL, ids=["api", "actors", "inference", "temporal", "store"])
async def test_a_part_killed_in_the_middle_of_a_reply_is_hardly_noticed(
    up: Up, http: httpx.AsyncClient, words: tuple[str, ...]
) -> None:
    async def kill() -> None:
        killed = up.part(*words)
        killed.kill()
        await gone(killed.pid)

    _note(words[-1], await live_through(up.url, kill))


async def test_all_parts_killed_at_once_come_back_with_everything(up: Up, http: httpx.AsyncClient) -> None:
    async def kill() -> None:
        killed = [up.part(*words) for words in ALL]
        for one in killed:
            one.kill()
        await gone(*(one.pid for one in killed))

    _note("all", await live_through(up.url, kill))


async def test_up_itself_killed_and_started_anew_goes_on_where_it_was(tmp_path: Path) -> None:
    data, port = tmp_path / "data", any_free()
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(running_up(data, port))
        await first.ready()

        async def kill_and_start() -> None:
            pids = [first.process.pid, *(child.pid for child in first.children())]
            first.process.kill()
            await gone(*pids)
            await stack.enter_async_context(running_up(data, port))

        _note("up", await live_through(first.url, kill_and_start))


# -- replicas


async def test_a_socket_on_one_api_sees_what_is_posted_at_another_that_is_killed(
    up: Up, http: httpx.AsyncClient
) -> None:
    port = any_free()
    async with running_beside(up, "api", "--port", str(port)) as second:
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            await until_ready(client)

            async def kill() -> None:
                killed = up.part(*API)
                killed.kill()
                await gone(killed.pid)

            await live_through(up.url, kill, url_too=url)
        assert await second.end() == 0


async def test_a_second_inference_worker_goes_on_with_the_reply_of_a_killed_one(
    up: Up, http: httpx.AsyncClient
) -> None:
    async with running_beside(up, "worker", "--pool", "inference") as second:
        await second.said("worker started")
        talk = await Talk.begin(http)
        reader = SseReader(up.url, talk.session)
        async with asyncio.TaskGroup() as group:
            group.create_task(reader.run())
            reply = (await talk.post(LONG)).reply
            assert reply is not None
            await reader.until(lambda: len(reader.texts.get(reply, "")) > 300)
            writer = await _writer(up, talk.session)
            before = reader.texts[reply]
            blow = time.monotonic()
            psutil.Process(writer).kill()
            await reader.until(lambda: reader.texts[reply] != before, within=TAKEN_OVER_WITHIN_S)
            _note("taken over after", time.monotonic() - blow)
            assert await _writer(up, talk.session) != writer
            await reader.until(lambda: reader.finish(reply) is not None)
            await talk.end()
        await check(talk, reader)
        await _check_pieces(up, reply, await scripted_reply(LONG))
        if is_running(second.process.pid):
            assert await second.end() == 0


async def test_an_inference_worker_that_was_frozen_does_not_write_into_its_successors_reply(
    up: Up, http: httpx.AsyncClient
) -> None:
    talk = await Talk.begin(http)
    readers = [SseReader(up.url, talk.session), WsReader(up.url, talk.session)]
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        for reader in readers:
            group.create_task(reader.run())
        reply = (await talk.post(LONG)).reply
        assert reply is not None
        for reader in readers:
            await reader.until(lambda seen=reader: len(seen.texts.get(reply, "")) > 300)  # type: ignore[misc]
        with frozen(up.part(*INFERENCE)):
            before = len(readers[0].texts[reply])
            await stack.enter_async_context(running_beside(up, "worker", "--pool", "inference"))
            await readers[0].until(lambda: len(readers[0].texts[reply]) > before + 100)
        await readers[0].until(lambda: readers[0].finish(reply) is not None)
        await talk.end()
    await check(talk, *readers)
    await _check_pieces(up, reply, await scripted_reply(LONG))


# -- what an operator does


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "replying"])
@pytest.mark.parametrize(
    ("verb", "options", "reason"),
    [
        ("terminate", [], "terminated"),
        ("cancel", [], "cancelled"),
        ("reset", ["--event-id", "4", "--reason", "test"], "reset"),
    ],
    ids=["terminate", "cancel", "reset"],
)
async def test_a_session_that_an_operator_stops_is_ended_within_seconds(
    up: Up, http: httpx.AsyncClient, verb: str, options: list[str], reason: str, busy: bool
) -> None:
    talk = await Talk.begin(http)
    reader, reply = SseReader(up.url, talk.session), ""
    async with asyncio.TaskGroup() as group:
        group.create_task(reader.run())
        first = (await talk.post("hello")).reply
        assert first is not None
        await reader.until(lambda: reader.finish(first) is not None)
        if busy:
            reply = (await talk.post("[[words=500 delay_ms=20]]")).reply or ""
            await reader.until(lambda: bool(reader.texts.get(reply)))
        await _operate(up, verb, "--workflow-id", talk.session, *options)
        # Whoever posts is told at once, before anything has been noticed in the background.
        async with asyncio.timeout(8):
            refused = await asyncio.gather(
                *(
                    talk.http.post(f"/chat/{talk.session}/message", json={"content": "too late"})
                    for _ in range(4)
                )
            )
        for answer in refused:
            assert (answer.status_code, answer.json()["code"]) == (409, "session-ended"), answer.text
        await eventually(lambda: _has_ended(talk), within_s=10)
        await reader.until(lambda: reader.ended, within=10)
    session = (await talk.read()).raise_for_status().json()
    assert session["end_reason"] == reason
    assert session["last_seq"] == len(reader.events)
    assert reader.faults == []
    messages = {message["id"]: message for message in await talk.messages()}
    assert messages[first]["content"] == await scripted_reply("hello")
    if reply:
        cut = messages[reply]
        assert cut["status"] in ("failed", "cancelled")
        assert cut["content"].startswith(reader.texts[reply])
        assert (await scripted_reply("[[words=500]]")).startswith(cut["content"])


async def test_a_session_ended_by_an_operator_that_nobody_asks_ends_for_its_readers(
    up: Up, http: httpx.AsyncClient
) -> None:
    talk = await Talk.begin(http)
    reader = WsReader(up.url, talk.session)
    async with asyncio.TaskGroup() as group:
        group.create_task(reader.run())
        await talk.post("a note", reply=False)
        await _operate(up, "terminate", "--workflow-id", talk.session)
        await reader.until(lambda: reader.ended, within=10)
    assert reader.faults == []
    assert reader.events[-1]["data"]["reason"] == "terminated"


async def test_a_message_posted_by_hand_is_there_and_is_replied_to(up: Up, http: httpx.AsyncClient) -> None:
    talk = await Talk.begin(http)
    reader = SseReader(up.url, talk.session)
    async with asyncio.TaskGroup() as group:
        group.create_task(reader.run())
        by_hand = ("update", "execute", "--workflow-id", talk.session, "--name", "PostMessage")
        await _operate(up, *by_hand, "--input", '{"content":"hi"}')
        await reader.until(lambda: any(event["type"] == "message.completed" for event in reader.events))
        await eventually(lambda: _shows(talk, ["hi", "You said: hi"]))
        await talk.end()
    assert reader.faults == []


# -- what is answered while a server is away


async def test_while_temporal_is_away_reads_go_on_and_posts_are_refused_in_time(tmp_path: Path) -> None:
    env = {"GOATHERD_ASK_TIMEOUT_S": f"{ASK_TIMEOUT_S:g}"}
    async with (
        running_up(tmp_path / "data", any_free(), env=env) as up,
        httpx.AsyncClient(base_url=up.url, timeout=30) as http,
    ):
        await up.ready()
        talk = await Talk.begin(http)
        kept = await talk.post("kept", reply=False)
        late = {"content": "late", "client_id": "late", "reply": False}

        async def refused() -> None:
            """A post in vain is answered in time; all that can be read still is."""
            began = time.monotonic()
            tries = [
                asyncio.create_task(_try(talk, "POST", "/message", late)),
                asyncio.create_task(_try(talk, "POST", None, {})),
            ]
            for path in ("", "/message", f"/message/{kept.answer['id']}"):
                assert (await talk.read(path)).status_code == 200
            for answer in tries:
                assert await answer in (503, 504)
                assert time.monotonic() - began < ASK_TIMEOUT_S + 2
            assert await status_of(http, "/readyz") == 503

        with frozen(up.part(*TEMPORAL)):
            await refused()
        await talk.post("in between", reply=False)
        with up.frozen():
            up.part(*TEMPORAL).kill()
            await refused()
        await until_ready(http)
        # Workers take a while to find that Temporal is back: whoever is refused tries again.
        await talk.insist("POST", f"/chat/{talk.session}/message", json=late)
        contents = [message["content"] for message in await talk.messages()]
        assert contents.count("late") == 1
        assert contents.count("kept") == contents.count("in between") == 1
        assert await up.end() == 0


async def test_while_the_store_is_away_everything_is_503_and_nothing_is_lost(
    up: Up, http: httpx.AsyncClient
) -> None:
    talk = await Talk.begin(http)
    kept = await talk.post("kept", reply=False)
    late = {"content": "late", "client_id": "late"}
    with up.frozen():
        killed = up.part(*STORE)
        killed.kill()
        await gone(killed.pid)
        answers = await asyncio.gather(
            *(_try(talk, "GET", path, None) for path in ("", "/message", f"/message/{kept.answer['id']}")),
            _try(talk, "GET", None, None),
            _try(talk, "POST", "/message", late),
            _try(talk, "POST", None, {}),
            _try(talk, "DELETE", "", None),
            status_of(http, "/readyz"),
        )
        assert set(answers) == {503}, answers
        assert await status_of(http, "/healthz") == 200
    await until_ready(http)
    await talk.insist("POST", f"/chat/{talk.session}/message", json=late)
    await eventually(lambda: _shows(talk, ["kept", "late", "You said: late"]), within_s=PATIENCE_S)


# -- looking and acting beside the API


async def _try(talk: Talk, method: str, path: str | None, body: Json | None) -> int:
    """The status of one request on the session, or, without a path, on all of them."""
    where = "/chat" if path is None else f"/chat/{talk.session}{path}"
    return (await talk.http.request(method, where, json=body)).status_code


async def _has_ended(talk: Talk) -> bool:
    return bool((await talk.read()).raise_for_status().json()["status"] == "ended")


async def _shows(talk: Talk, contents: list[str]) -> bool:
    return [message["content"] for message in await talk.messages()] == contents


async def _operate(up: Up, verb: str, *arguments: str) -> None:
    """`temporal workflow …`, as an operator types it."""
    process = await asyncio.create_subprocess_exec(
        program("temporal"),
        *("workflow", verb, *arguments, "--address", up.where().temporal),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()


async def _writer(up: Up, session: str) -> int:
    """The process that Temporal has given the session's reply to last."""
    client = await Client.connect(up.where().temporal)
    (pending,) = (await client.get_workflow_handle(session).describe()).raw_description.pending_activities
    return int(pending.last_worker_identity.partition("@")[0])


async def _check_pieces(up: Up, reply: str, text: str) -> None:
    """In the store the pieces of the reply follow each other and are the whole of it."""
    async with AsyncMongoClient[dict[str, Any]](up.where().mongo_uri) as client:
        pieces = await client["goatherd"]["deltas"].find({"message": reply}).sort("n").to_list()
    assert [piece["n"] for piece in pieces] == list(range(len(pieces)))
    at = 0
    for piece in pieces:
        assert piece["offset"] == at
        at += len(piece["text"])
    assert "".join(piece["text"] for piece in pieces) == text
