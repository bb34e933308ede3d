"""The fake: scripts in the last user turn."""

from __future__ import annotations

import asyncio
import time

import pytest

from activities.backends.scripted import ScriptedChatModel
from activities.ports import ChatModel, ChatRequest
from goatherd.contracts.inference import ChatTurn, Generation, Usage
from goatherd.errors import Invalid, Unavailable
from tests.activities.contract_chat_model import ChatModelContract, asking, reply

ANY = Generation()


class TestScriptedChatModel(ChatModelContract):
    @pytest.fixture
    def chat(self) -> ChatModel:
        return ScriptedChatModel()


async def test_echoes_the_last_user_turn_word_by_word() -> None:
    turns = [
        ChatTurn(role="user", content="first"),
        ChatTurn(role="assistant", content="You said: first"),
        ChatTurn(role="user", content="hello  there\n"),
    ]
    got = await reply(ScriptedChatModel(), ChatRequest(turns, ANY))
    assert got.chunks == ["You", " said:", " hello", "  there"]
    assert got.finish is not None
    assert got.finish.reason == "stop"
    assert got.finish.usage == Usage(prompt_tokens=6, completion_tokens=4)


async def test_words_and_delay() -> None:
    began = time.perf_counter()
    got = await reply(ScriptedChatModel(), asking("[[words=5 delay_ms=20]] not echoed", ANY))
    assert got.text == "word1 word2 word3 word4 word5"
    assert 0.1 <= time.perf_counter() - began < 1


async def test_prefix_may_end_within_a_word() -> None:
    got = await reply(ScriptedChatModel(), asking("[[words=3]]", ANY, prefix="word1 wo"))
    assert got.chunks == ["rd2", " word3"]


async def test_foreign_prefix_is_followed_by_the_whole_reply() -> None:
    got = await reply(ScriptedChatModel(), asking("[[words=2]]", ANY, prefix="Hm. "))
    assert got.text == "word1 word2"


async def test_script_gives_the_finish_reason() -> None:
    got = await reply(ScriptedChatModel(), asking("hello [[finish=length]]", ANY))
    assert got.text == "You said: hello"
    assert got.finish is not None
    assert got.finish.reason == "length"


@pytest.mark.parametrize(("script", "error"), [("unavailable", Unavailable), ("invalid", Invalid)])
async def test_script_fails(script: str, error: type[Exception]) -> None:
    with pytest.raises(error, match="the script says"):
        await reply(ScriptedChatModel(), asking(f"[[fail={script}]]", ANY))


@pytest.mark.parametrize("script", ["wrods=3", "words=many", "finish=stop", "fail=maybe"])
async def test_script_that_can_not_be_read_is_invalid(script: str) -> None:
    with pytest.raises(Invalid, match="not a script"):
        await reply(ScriptedChatModel(), asking(f"[[{script}]]", ANY))


async def test_cancelled_while_it_waits() -> None:
    task = asyncio.create_task(reply(ScriptedChatModel(), asking("[[words=2 delay_ms=60000]]", ANY)))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
