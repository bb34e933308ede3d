"""The real SmolLM2, from the default cache folder; it is prepared there if it is not yet."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from activities.backends.huggingface import HuggingFaceChatModel
from activities.backends.model_sources import prepare
from activities.ports import ChatModel, ChatRequest
from goatherd.contracts.inference import ChatTurn, Chunk, Finish, Generation
from goatherd.errors import Invalid
from goatherd.settings import DEFAULT_MODEL, Settings
from tests.activities.contract_chat_model import (
    GREEDY,
    ChatModelContract,
    asking,
    reply,
    varied,
)

if TYPE_CHECKING:
    from activities.backends._causal_lm import CausalLM

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.model

WARM = Generation(temperature=1.0, top_p=0.95, max_tokens=24)


@pytest.fixture(scope="module")
def language_model() -> CausalLM:
    from activities.backends._causal_lm import CausalLM

    settings = Settings()
    spec = settings.models[DEFAULT_MODEL]
    return CausalLM.load(prepare(DEFAULT_MODEL, spec, settings.cache), spec)


@pytest.fixture(scope="module")
def chat(language_model: CausalLM) -> Iterator[ChatModel]:
    with ThreadPoolExecutor(2) as executor:
        yield HuggingFaceChatModel(language_model, executor)


@pytest.fixture
def narrow(language_model: CausalLM) -> Iterator[ChatModel]:
    """The model with one slot."""
    with ThreadPoolExecutor(1) as executor:
        yield HuggingFaceChatModel(language_model, executor)


def long_question(language_model: CausalLM, tokens: int) -> str:
    text = " goat" * tokens
    assert abs(len(language_model._encode(text)) - tokens) < 10
    return text


class TestHuggingFaceChatModel(ChatModelContract):
    @pytest.fixture
    def chat(self, chat: ChatModel) -> ChatModel:
        return chat


async def test_knows_the_capital_of_france(chat: ChatModel) -> None:
    got = await reply(chat, asking("What is the capital of France?"))
    assert "Paris" in got.text
    assert got.finish is not None
    assert got.finish.reason == "stop"
    assert "<|im_end|>" not in got.text


async def test_text_comes_as_it_is_made(chat: ChatModel) -> None:
    arrivals = []
    async for _ in chat.stream(asking("Write a short story about a goat.")):
        arrivals.append(time.perf_counter())
    gaps = [after - before for before, after in pairwise(arrivals)]
    assert len(arrivals) == 25
    assert max(gaps) < (arrivals[-1] - arrivals[0]) / 2


async def test_system_turn_replaces_the_default_instructions(language_model: CausalLM) -> None:
    request = ChatRequest(
        [
            ChatTurn(role="user", content="Hello"),
            ChatTurn(role="system", content="You are a pirate."),
            ChatTurn(role="system", content="Be brief."),
        ],
        GREEDY,
    )
    shown = language_model._decode(language_model._prompt(request).ids)
    assert shown == "system\nYou are a pirate.\n\nBe brief.\nuser\nHello\nassistant\n"


async def test_seed_decides_the_reply_whatever_else_runs(chat: ChatModel) -> None:
    seeded = varied(WARM, seed=7)
    alone = await reply(chat, asking("Tell me something.", seeded))
    together = await asyncio.gather(
        reply(chat, asking("Tell me something.", seeded)), reply(chat, asking("Tell me anything.", WARM))
    )
    assert together[0] == alone
    other = await reply(chat, asking("Tell me something.", varied(WARM, seed=8)))
    assert other.text != alone.text


async def test_seeded_reply_resumes_to_the_same_whole(chat: ChatModel) -> None:
    seeded = varied(WARM, seed=3, temperature=0.7)
    whole = await reply(chat, asking("Tell me about goats.", seeded))
    prefix = "".join(whole.chunks[:10])
    rest = await reply(chat, asking("Tell me about goats.", seeded, prefix=prefix))
    assert prefix + rest.text == whole.text
    assert rest.finish == whole.finish


async def test_without_a_seed_replies_differ(chat: ChatModel) -> None:
    hot = varied(WARM, temperature=1.5)
    replies = [await reply(chat, asking("Tell me something.", hot)) for _ in range(3)]
    assert len({got.text for got in replies}) > 1


@pytest.mark.parametrize("tokens", [1900, 7000])
async def test_cancelled_within_a_second_in_prefill(
    narrow: ChatModel, language_model: CausalLM, tokens: int
) -> None:
    request = asking(long_question(language_model, tokens))
    task = asyncio.create_task(reply(narrow, request))
    await asyncio.sleep(0.5)
    assert not task.done()
    began = time.perf_counter()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.perf_counter() - began < 1
    assert narrow._executor._work_queue.qsize() == 0  # type: ignore[attr-defined]
    assert (await reply(narrow, asking("Hello", varied(GREEDY, max_tokens=1)))).finish is not None


async def test_closed_within_a_second_in_decoding(narrow: ChatModel) -> None:
    stream = narrow.stream(asking("Write a long story about a goat.", varied(GREEDY, max_tokens=2000)))
    for _ in range(5):
        await anext(stream)
    began = time.perf_counter()
    await stream.aclose()  # type: ignore[attr-defined]
    assert time.perf_counter() - began < 1
    assert (await reply(narrow, asking("Hello", varied(GREEDY, max_tokens=1)))).finish is not None
    assert time.perf_counter() - began < 3


async def test_reply_that_waits_for_a_slot_is_cancelled_at_once(narrow: ChatModel) -> None:
    busy = narrow.stream(asking("Write a long story about a goat.", varied(GREEDY, max_tokens=2000)))
    await anext(busy)
    waiting = asyncio.create_task(reply(narrow, asking("Hello")))
    await asyncio.sleep(0.1)
    began = time.perf_counter()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert time.perf_counter() - began < 0.1
    await busy.aclose()  # type: ignore[attr-defined]


async def test_oldest_turns_are_left_out_when_all_do_not_fit(language_model: CausalLM) -> None:
    filler = long_question(language_model, 3000)
    turns = [ChatTurn(role="system", content="Be brief.")]
    for n in range(5):
        turns += [
            ChatTurn(role="user", content=f"question {n}{filler}"),
            ChatTurn(role="assistant", content=f"answer {n}"),
        ]
    turns.append(ChatTurn(role="user", content="last question"))
    prompt = language_model._prompt(ChatRequest(turns, varied(GREEDY, max_tokens=500)))
    shown = language_model._decode(prompt.ids)
    assert "Be brief." in shown
    assert "question 2" not in shown
    assert "answer 2" not in shown
    assert "question 3" in shown
    assert shown.endswith("last question\nassistant\n")
    assert len(prompt.ids) + prompt.most <= language_model.window


async def test_reply_is_capped_at_what_the_window_leaves(language_model: CausalLM) -> None:
    question = long_question(language_model, language_model.window - 100)
    prompt = language_model._prompt(asking(question, varied(GREEDY, max_tokens=5000)))
    assert 0 < prompt.most < 100
    assert len(prompt.ids) + prompt.most == language_model.window


async def test_turn_that_does_not_fit_is_invalid(chat: ChatModel, language_model: CausalLM) -> None:
    with pytest.raises(Invalid, match=r"too long: .* \d+ tokens, and the model sees at most 8192") as raised:
        await reply(chat, asking(long_question(language_model, language_model.window)))
    assert raised.value.code == "too-long"


@pytest.mark.parametrize(
    "text", ["你好,世界。山羊在山上吃草。", "goats 🐐🐐 and a family 👨‍👩‍👧‍👦 in 🇨🇭!", "naïve œuvre"]
)
async def test_characters_of_many_tokens_come_whole(language_model: CausalLM, text: str) -> None:
    from activities.backends._text import Detokenizer

    tokens = language_model._encode(text)
    for cut in range(len(tokens)):
        before, after = tokens[:cut], tokens[cut:]
        if language_model._decode(before).endswith("\ufffd"):
            continue
        stream = Detokenizer(language_model._decode, before)
        pieces = [stream.push(token) for token in after]
        assert not any("\ufffd" in piece for piece in pieces)
        assert language_model._decode(before) + "".join(pieces) == text


async def test_stream_of_emoji_and_chinese_is_whole_characters(chat: ChatModel) -> None:
    question = "Repeat exactly: 你好,世界 🐐🐐 你好,世界 🐐🐐"
    got = await reply(chat, asking(question, prefix="你好,世界 🐐🐐"))
    assert "你好" in got.text
    assert not any("\ufffd" in chunk for chunk in got.chunks)


async def test_loop_is_free_while_a_reply_is_made(chat: ChatModel) -> None:
    async def lags() -> AsyncIterator[float]:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.01)
            yield time.perf_counter() - began - 0.01

    task = asyncio.create_task(reply(chat, asking("Write a short story about a goat.")))
    worst = 0.0
    async for lag in lags():
        worst = max(worst, lag)
        if task.done():
            break
    assert isinstance(task.result().finish, Finish)
    assert worst < 0.25


async def test_model_in_float32_is_loaded_from_the_same_folder() -> None:
    settings = Settings()
    spec = settings.models[DEFAULT_MODEL].model_copy(update={"dtype": "float32"})
    with ThreadPoolExecutor(1) as executor:
        model = HuggingFaceChatModel.load("full", spec, cache=settings.cache, executor=executor)
        got = [item async for item in model.stream(asking("What is the capital of France?"))]
    assert "Paris" in "".join(item.text for item in got if isinstance(item, Chunk))
