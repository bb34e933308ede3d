"""The real SmolLM2, from the default cache folder; it is prepared there if it is not yet."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from activities.backends.huggingface import HuggingFaceChatModel
from activities.backends.model_sources import prepare
from activities.inference_ports import LoadContext
from activities.ports import ChatModel, ChatRequest
from goatherd.contracts.inference import ChatTurn, Chunk, Finish, Generation, Limits, ModelSpec
from goatherd.contracts.inference_tasks import Task
from goatherd.errors import Invalid, Unavailable, WrongTask
from goatherd.settings import DEFAULT_MODEL, Settings
from tests.activities.contract_chat_model import (
    GREEDY,
    ChatModelContract,
    Reply,
    asking,
    going_on,
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
def context() -> Iterator[LoadContext]:
    with ThreadPoolExecutor(2) as executor:
        yield LoadContext(Settings().cache, executor)


@pytest.fixture(scope="module")
def chat(language_model: CausalLM) -> Iterator[ChatModel]:
    with ThreadPoolExecutor(2) as executor:
        yield HuggingFaceChatModel(language_model, executor)


@pytest.fixture
def narrow(language_model: CausalLM) -> Iterator[ChatModel]:
    """The model, one reply at a time."""
    with ThreadPoolExecutor(1) as executor:
        yield HuggingFaceChatModel(language_model, executor, Limits(batch=1))


def ignore(_: object) -> None:
    """Shows nothing."""


async def together(chat: ChatModel, requests: Sequence[ChatRequest]) -> list[Reply]:
    return await asyncio.gather(*(reply(chat, request) for request in requests))


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
    shown = language_model._decode(language_model.begin(request, ignore).ids)
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
    prompt = language_model.begin(ChatRequest(turns, varied(GREEDY, max_tokens=500)), ignore)
    shown = language_model._decode(prompt.ids)
    assert "Be brief." in shown
    assert "question 2" not in shown
    assert "answer 2" not in shown
    assert "question 3" in shown
    assert shown.endswith("last question\nassistant\n")
    assert len(prompt.ids) + prompt.most <= language_model.window


async def test_reply_is_capped_at_what_the_window_leaves(language_model: CausalLM) -> None:
    question = long_question(language_model, language_model.window - 100)
    prompt = language_model.begin(asking(question, varied(GREEDY, max_tokens=5000)), ignore)
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


async def test_model_in_float32_is_loaded_from_the_same_folder(context: LoadContext) -> None:
    from activities.backends.hf.talk import load

    spec = Settings().models[DEFAULT_MODEL].model_copy(update={"dtype": "float32"})
    loaded = load("full", spec, prepare(DEFAULT_MODEL, spec, context.cache), context)
    assert loaded.tasks == [Task.CONVERSATIONAL, Task.TEXT_GENERATION]
    assert loaded.memory_bytes > 500_000_000
    assert loaded.chat is not None
    got = await reply(loaded.chat, asking("What is the capital of France?", varied(GREEDY, max_tokens=8)))
    assert "Paris" in got.text
    await loaded.close()
    assert loaded.chat is None


# -- many at once


def of_all_kinds() -> list[ChatRequest]:
    questions = ["Hello", "Tell me about goats. " * 9, "What is the capital of France?", "Sing of 山羊."]
    return [
        *(asking(question, varied(GREEDY, max_tokens=6 + n)) for n, question in enumerate(questions)),
        *(asking(question, varied(WARM, seed=n, max_tokens=9)) for n, question in enumerate(questions)),
        going_on("The mountains", varied(WARM, seed=1, top_k=9, repetition_penalty=1.3, max_tokens=9)),
    ]


async def test_reply_does_not_depend_on_its_neighbours(chat: ChatModel, language_model: CausalLM) -> None:
    assert language_model.in_rows
    requests = of_all_kinds()
    alone = [await reply(chat, request) for request in requests]
    assert await together(chat, requests) == alone


async def test_reply_joins_those_that_are_made_and_is_done_before_them(chat: ChatModel) -> None:
    long = chat.stream(asking("Write a long story about a goat.", varied(GREEDY, max_tokens=2000)))
    await anext(long)
    for _ in range(2):
        got = await reply(chat, asking("Hello", varied(GREEDY, max_tokens=3)))
        assert got.finish is not None
    assert isinstance(await anext(long), Chunk)
    await long.aclose()  # type: ignore[attr-defined]


async def test_others_are_written_while_a_long_prompt_is_read(
    chat: ChatModel, language_model: CausalLM
) -> None:
    long = asyncio.create_task(
        reply(chat, asking(long_question(language_model, 2000), varied(GREEDY, max_tokens=1)))
    )
    got = await reply(chat, asking("Hello", varied(GREEDY, max_tokens=6)))
    assert got.finish is not None
    assert not long.done()
    long.cancel()
    with pytest.raises(asyncio.CancelledError):
        await long


async def test_lack_of_memory_fails_one_reply(chat: ChatModel, monkeypatch: pytest.MonkeyPatch) -> None:
    from activities.backends._steps import KeyValueRow

    requests = [asking("Tell me about goats. " * 9, varied(GREEDY, max_tokens=12)), asking("Hello")]
    expected = await reply(chat, requests[1])
    room = KeyValueRow.make_room

    def scarce(row: KeyValueRow) -> None:
        if row.length > 80:
            raise MemoryError
        room(row)

    monkeypatch.setattr(KeyValueRow, "make_room", scarce)
    first, second = await asyncio.gather(*(reply(chat, one) for one in requests), return_exceptions=True)
    assert isinstance(first, Unavailable)
    assert first.code == "out-of-memory"
    assert second == expected


async def test_model_that_can_not_step_in_rows_makes_replies_one_by_one(
    chat: ChatModel, language_model: CausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(language_model, "in_rows", False)
    got = await together(chat, [asking("What is the capital of France?")] * 2)
    assert "Paris" in got[0].text
    assert got[0] == got[1]


# -- text generation


async def test_text_goes_on_without_a_template(chat: ChatModel, language_model: CausalLM) -> None:
    request = going_on("The capital of France is", varied(GREEDY, max_tokens=4))
    got = await reply(chat, request)
    assert got.text.startswith(" Paris")
    assert language_model._decode(language_model.begin(request, ignore).ids) == request.prompt


async def test_prompt_is_cut_from_the_left(chat: ChatModel) -> None:
    few = varied(GREEDY, max_tokens=4)
    cut = replace(going_on("It rains in Spain. The capital of France is", few), prompt_tokens=5)
    got, expected = await together(chat, [cut, going_on(" The capital of France is", few)])
    assert got.finish is not None
    assert got.finish.usage.prompt_tokens == 5
    assert got == expected


async def test_prompt_that_does_not_fit_is_too_long(chat: ChatModel, language_model: CausalLM) -> None:
    request = going_on(" goat" * language_model.window, varied(GREEDY, max_tokens=2))
    with pytest.raises(Invalid, match="the prompt is too long: it is 8192 tokens") as raised:
        await reply(chat, request)
    assert raised.value.code == "too-long"
    assert raised.value.pointer == "/inputs"
    assert (await reply(chat, replace(request, prompt_tokens=20))).finish is not None


async def test_log_probabilities_are_of_the_models_own_distribution(
    chat: ChatModel, language_model: CausalLM
) -> None:
    import torch

    few = varied(GREEDY, max_tokens=2)
    wishes = [few, varied(WARM, top_k=1, max_tokens=2)]
    text = "The capital of France is"
    cold, hot = await together(chat, [replace(going_on(text, wish), details=True) for wish in wishes])
    assert hot.tokens == cold.tokens
    likely = cold.tokens[0]
    assert likely.text == " Paris"
    with torch.inference_mode():
        scores = language_model._model(torch.tensor([language_model._encode(text)])).logits[0, -1]
        own = float(scores.float().log_softmax(-1)[likely.id])
    assert likely.logprob == pytest.approx(own, abs=0.01)


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def untaught(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learned nothing, and has no chat template: for what does not depend on its words."""
    import torch
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    settings = Settings()
    folder: Path = tmp_path_factory.mktemp(request.param)
    tokenizer = AutoTokenizer.from_pretrained(
        prepare(DEFAULT_MODEL, settings.models[DEFAULT_MODEL], settings.cache)
    )
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    torch.manual_seed(1)
    size: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
    }
    if request.param == "llama":
        llama = LlamaConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            **size,
        )
        LlamaForCausalLM(llama).save_pretrained(folder)
    else:
        gpt2 = GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=256, **size)
        GPT2LMHeadModel(gpt2).save_pretrained(folder)
    return folder


async def test_model_without_a_template_only_goes_on_from_texts(untaught: Path, context: LoadContext) -> None:
    from activities.backends.hf.talk import load

    loaded = load("tiny", ModelSpec(task=Task.TEXT_GENERATION), untaught, context)
    assert loaded.tasks == [Task.TEXT_GENERATION]
    assert loaded.chat is not None
    with pytest.raises(WrongTask, match="no chat template"):
        await reply(loaded.chat, asking("Hello"))
    wish = Generation(max_tokens=20, seed=5, temperature=1.0)
    texts = [going_on("goat" * n, varied(wish, seed=n)) for n in (1, 5, 20, 50)]
    alone = [await reply(loaded.chat, text) for text in texts]
    assert await together(loaded.chat, texts) == alone
    await loaded.close()
    with pytest.raises(ValueError, match="set its task to text-generation"):
        load("tiny", ModelSpec(), untaught, context)


async def test_other_kinds_of_models_step_in_rows(untaught: Path) -> None:
    from activities.backends._causal_lm import CausalLM

    spec = ModelSpec(task=Task.TEXT_GENERATION, dtype="float32")
    assert CausalLM.load(untaught, spec).in_rows
