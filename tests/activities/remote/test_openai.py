"""The provider `openai`: the official client, against a server that speaks the API."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from typing import Any

import pytest

from activities.backends.batching import Batches
from activities.backends.openai_models import OpenAIProvider
from activities.inference_ports import LoadedModel
from activities.ports import ChatModel, ChatRequest
from goatherd.contracts.inference import ChatTurn, Chunk, Generation, Limits, ModelSpec
from goatherd.contracts.inference_tasks import Media, Task
from goatherd.errors import GoatherdError, Invalid, Unavailable, WrongTask
from tests.activities.contract_chat_model import (
    GREEDY,
    ChatModelContract,
    asking,
    going_on,
    reply,
    varied,
)
from tests.activities.remote.loading import item, loaded, outputs, run
from tests.activities.remote.openai_server import DIMENSIONS, KEY, PNG, OpenAIServer, vector_of
from tests.activities.remote.serving import serving


class House:
    """A server, and models that are loaded from it."""

    def __init__(self, server: OpenAIServer, url: str, stack: AsyncExitStack) -> None:
        self.server = server
        self.url = url
        self._stack = stack

    async def model(self, task: Task, *, source: str = "goat-1", **options: Any) -> LoadedModel:
        spec = ModelSpec(
            provider="openai", source=source, task=task, options={"base_url": f"{self.url}/v1", **options}
        )
        return await self._stack.enter_async_context(loaded(OpenAIProvider(), spec))

    async def chat(self, **options: Any) -> ChatModel:
        model = await self.model(Task.CONVERSATIONAL, **options)
        assert model.chat is not None
        return model.chat


@pytest.fixture
async def house(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server = OpenAIServer()
    async with serving(server.app) as url, AsyncExitStack() as stack:
        yield House(server, url, stack)


class TestOpenAIChatModel(ChatModelContract):
    @pytest.fixture
    async def chat(self, house: House) -> ChatModel:
        return await house.chat(resume="continue_final_message")

    async def test_goes_on_from_a_prefix_to_the_same_whole(self, chat: ChatModel) -> None:
        # How many tokens the prefix has is guessed, so that the counts are not quite those of the whole.
        whole = await reply(chat, asking(self.questions[0]))
        for cut in (1, len(whole.chunks) // 2, len(whole.chunks) - 1):
            prefix = "".join(whole.chunks[:cut])
            rest = await reply(chat, asking(self.questions[0], prefix=prefix))
            assert prefix + rest.text == whole.text
            assert rest.finish is not None
            assert rest.finish.reason == "stop"

    async def test_goes_on_from_a_text_to_the_same_whole(self, chat: ChatModel) -> None:
        whole = await reply(chat, going_on(self.questions[1]))
        prefix = "".join(whole.chunks[:2])
        rest = await reply(chat, going_on(self.questions[1], prefix=prefix))
        assert prefix + rest.text == whole.text

    async def test_prefix_that_used_up_max_tokens_gets_no_more(self, chat: ChatModel) -> None:
        short = varied(GREEDY, max_tokens=4)
        whole = await reply(chat, asking(self.questions[0], short))
        rest = await reply(chat, asking(self.questions[0], short, prefix=whole.text))
        assert rest.chunks == []
        assert rest.finish is not None
        assert rest.finish.reason == "length"


async def test_model_is_asked_to_go_on_and_what_it_repeats_is_not_shown(house: House) -> None:
    chat = await house.chat()
    got = await reply(chat, ChatRequest([ChatTurn(role="user", content="sing")], GREEDY, "You said: Your"))
    assert [one["role"] for one in house.server.asked[-1]["messages"]] == ["user", "assistant", "user"]
    # The scripted model repeats its last question, after "You said: ", as a model that starts anew would.
    assert got.text.startswith(" last message was cut off")


async def test_wishes_reach_the_server_by_its_names(house: House) -> None:
    chat = await house.chat(max_tokens_as="max_completion_tokens", organization="org-1", project="proj-1")
    wish = Generation(max_tokens=9, temperature=0.5, top_p=0.9, stop=["", "zzz"], seed=7)
    await reply(chat, asking("hello", wish))
    asked, headers = house.server.asked[-1], house.server.headers[-1]
    assert asked["model"] == "goat-1"
    assert (asked["max_completion_tokens"], asked["temperature"], asked["top_p"]) == (9, 0.5, 0.9)
    assert (asked["stop"], asked["seed"]) == (["zzz"], 7)
    assert asked.keys().isdisjoint({"max_tokens", "top_k", "repetition_penalty"})
    assert (headers["openai-organization"], headers["openai-project"]) == ("org-1", "proj-1")


async def test_environment_does_not_change_whom_a_model_belongs_to(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "somebody-else")
    await reply(await house.chat(), asking("hello"))
    assert "openai-organization" not in house.server.headers[-1]


async def test_tokens_are_told_if_details_are_asked_for(house: House) -> None:
    chat = await house.chat()
    chunks = []
    async for one in chat.stream(ChatRequest([ChatTurn(role="user", content="a b")], GREEDY, details=True)):
        if isinstance(one, Chunk):
            chunks.append(one)
    assert [token.text for one in chunks for token in one.tokens or []] == ["You", " said:", " a", " b"]
    assert {token.logprob for one in chunks for token in one.tokens or []} == {-0.5}


async def test_oldest_turns_are_left_out_until_the_rest_fits(house: House) -> None:
    house.server.window = 3
    turns = [ChatTurn(role="system", content="be short")]
    turns += [ChatTurn(role="user", content=f"turn {n}") for n in range(10)]
    got = await reply(await house.chat(), ChatRequest(turns, GREEDY))
    assert got.text == "You said: turn 9"
    kept = [one["content"] for one in house.server.asked[-1]["messages"]]
    assert kept[0] == "be short"
    assert kept[-1] == "turn 9"


async def test_turns_that_have_to_stay_and_do_not_fit_are_invalid(house: House) -> None:
    house.server.window = 0
    with pytest.raises(Invalid) as caught:
        await reply(await house.chat(), asking("hello"))
    assert caught.value.code == "too-long"


async def test_prompt_is_a_turn_or_is_gone_on_from_as_it_is(house: House) -> None:
    request = ChatRequest((), GREEDY, prompt="once upon")
    for generate, path in (("chat", "/v1/chat/completions"), ("completions", "/v1/completions")):
        got = await reply(await house.chat(generate=generate), request)
        assert got.text == "You said: once upon"
        assert house.server.asked[-1]["path"] == path


async def test_closed_stream_is_closed_at_the_server(house: House) -> None:
    chat = await house.chat()
    async with aclosing(chat.stream(asking("[[words=500 delay_ms=5]]", Generation()))) as stream:  # type: ignore[type-var]
        assert isinstance(await anext(stream), Chunk)
    async with asyncio.timeout(10):
        await house.server.left.wait()


@pytest.mark.parametrize("reserved", [{"n": 2}, {"stream": False}, {"model": "gpt-4o"}])
async def test_what_is_not_the_callers_cannot_be_passed_on(house: House, reserved: dict[str, Any]) -> None:
    request = ChatRequest([ChatTurn(role="user", content="hi")], GREEDY, passed_on=reserved)
    with pytest.raises(Invalid):
        await reply(await house.chat(), request)
    assert house.server.asked == []


async def test_refused_key_is_named_by_its_place_alone(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER_KEY", "secret-of-somebody")
    chat = await house.chat(api_key="env:OTHER_KEY")
    with pytest.raises(Unavailable) as caught:
        await reply(chat, asking("hello"))
    assert caught.value.code == "model-unavailable"
    assert "env:OTHER_KEY" in caught.value.message
    assert "secret-of-somebody" not in caught.value.message


async def test_missing_key_says_where_it_was_looked_for(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(Unavailable, match="env:OPENAI_API_KEY") as caught:
        await house.chat()
    assert caught.value.code == "model-unavailable"


async def test_server_that_is_not_there_is_unavailable(house: House) -> None:
    spec = ModelSpec(provider="openai", source="m", options={"base_url": "http://127.0.0.1:9/v1"})
    async with loaded(OpenAIProvider(), spec) as model:
        assert model.chat is not None
        with pytest.raises(Unavailable, match="no connection"):
            await reply(model.chat, asking("hello"))


async def test_texts_become_the_servers_vectors_in_their_order(house: House) -> None:
    task = Task.FEATURE_EXTRACTION
    model = await house.model(task)
    texts = ["one", "two and a half", "three"]
    made = await outputs(model, task, *(item(task, text) for text in texts))
    for text, vectors in zip(texts, made, strict=True):
        assert vectors.shape == [DIMENSIONS]
        assert struct.unpack(f"<{DIMENSIONS}f", vectors.data) == pytest.approx(vector_of(text))
    assert len(house.server.asked) == 1
    assert house.server.asked[0]["encoding_format"] == "base64"
    assert sum(vectors.tokens for vectors in made) == 6


async def test_vectors_that_come_as_numbers_are_taken_too(house: House) -> None:
    house.server.base64_known = False
    task = Task.FEATURE_EXTRACTION
    [made] = await outputs(await house.model(task), task, item(task, "goat"))
    assert struct.unpack(f"<{DIMENSIONS}f", made.data) == pytest.approx(vector_of("goat"))


async def test_texts_of_unlike_wishes_share_a_batch(house: House) -> None:
    task = Task.FEATURE_EXTRACTION
    items = [item(task, "a", dimensions=3), item(task, "b"), item(task, "c", pooling="mean")]
    whole, plain, refused = await run(await house.model(task), task, *items)
    assert not isinstance(whole, GoatherdError)
    assert whole.output.shape == [3]
    assert not isinstance(plain, GoatherdError)
    assert plain.output.shape == [DIMENSIONS]
    assert isinstance(refused, Invalid)
    assert refused.pointer == "/parameters/pooling"


async def test_batch_that_the_server_refuses_is_refused_whole(house: House) -> None:
    task = Task.FEATURE_EXTRACTION
    model = await house.model(task)
    with pytest.raises(Invalid, match="one of these"):
        await run(model, task, item(task, "fine"), item(task, "refuse me"))


async def test_text_that_the_server_refuses_fails_alone_of_all_that_came_together(house: House) -> None:
    task = Task.FEATURE_EXTRACTION
    batches = Batches("m", await house.model(task), Limits())
    items = [item(task, text) for text in ("fine", "refuse me", "as well")]
    computed = await batches.compute(task, items, callers=["somebody"] * 3)
    first, second, third = (one.result for one in computed)
    await batches.close()
    assert not isinstance(first, GoatherdError)
    assert isinstance(second, Invalid)
    assert not isinstance(third, GoatherdError)


async def test_sentences_are_compared_by_cosine(house: House) -> None:
    task = Task.SENTENCE_SIMILARITY
    pairs = {"source_sentence": "goat", "sentences": ["goat", "sheep"]}
    [scores] = await outputs(await house.model(Task.FEATURE_EXTRACTION), task, item(task, pairs))
    expected = sum(a * b for a, b in zip(vector_of("goat"), vector_of("sheep"), strict=True))
    assert scores == pytest.approx([1.0, expected], abs=1e-6)


WAV = b"RIFF\x24\x00\x00\x00WAVEfmt "


async def test_sound_is_sent_as_a_file_that_says_its_kind(house: House) -> None:
    task = Task.AUTOMATIC_SPEECH_RECOGNITION
    asked = item(task, Media(data=WAV), language="en", prompt="goats", temperature=0.1)
    [made] = await outputs(await house.model(task), task, asked)
    assert (made.text, made.duration_s, made.chunks) == (f"heard {len(WAV)} bytes", 3.0, None)
    sent = house.server.asked[-1]
    assert sent["file"] == "sound.wav"
    assert (sent["model"], sent["language"], sent["prompt"], sent["temperature"]) == (
        *("goat-1", "en", "goats"),
        "0.1",
    )


@pytest.mark.parametrize("timed", [True, "word"])
async def test_times_of_segments_and_words_are_chunks(house: House, timed: Any) -> None:
    task = Task.AUTOMATIC_SPEECH_RECOGNITION
    model = await house.model(task)
    [made] = await outputs(model, task, item(task, Media(data=WAV), return_timestamps=timed))
    assert made.chunks[0].text == "heard"
    assert made.chunks[1].timestamp == (1.0, 1.5)
    assert made.language == "english"
    granularity = house.server.asked[-1]["timestamp_granularities[]"]
    assert granularity == ("word" if timed == "word" else "segment")


async def test_translation_goes_to_translations(house: House) -> None:
    task = Task.AUTOMATIC_SPEECH_RECOGNITION
    await outputs(await house.model(task), task, item(task, Media(data=WAV), task="translate"))
    assert house.server.asked[-1]["path"] == "/v1/audio/translations"


async def test_text_is_spoken_in_a_voice_and_a_format(house: House) -> None:
    task = Task.TEXT_TO_SPEECH
    model = await house.model(task, voice="nova")
    plain, chosen = await outputs(
        model, task, item(task, "hello"), item(task, "hi", voice="echo", format="mp3", speed=2.0)
    )
    assert (plain.data, plain.mime) == (b"nova says hello", "audio/wav")
    assert (chosen.data, chosen.mime) == (b"echo says hi", "audio/mpeg")
    by_text = {asked["input"]: asked for asked in house.server.asked}
    assert (by_text["hi"]["response_format"], by_text["hi"]["speed"]) == ("mp3", 2.0)


@pytest.mark.parametrize("source", ["dall-e-3", "gpt-image-1"])
async def test_text_becomes_an_image(house: House, source: str) -> None:
    task = Task.TEXT_TO_IMAGE
    model = await house.model(task, source=source)
    [made] = await outputs(model, task, item(task, "a goat", width=1024, height=512))
    assert (made.data, made.mime) == (PNG, "image/png")
    assert house.server.asked[-1]["size"] == "1024x512"


async def test_wish_that_the_api_has_not_fails_its_item_alone(house: House) -> None:
    task = Task.TEXT_TO_IMAGE
    model = await house.model(task, source="gpt-image-1")
    fine, refused = await run(model, task, item(task, "a goat"), item(task, "a goat", seed=1))
    assert not isinstance(fine, GoatherdError)
    assert isinstance(refused, Invalid)
    assert refused.pointer == "/parameters/seed"


def test_check_knows_tasks_and_options() -> None:
    provider = OpenAIProvider()
    with pytest.raises(WrongTask):
        provider.check("m", ModelSpec(provider="openai", source="x", task=Task.FILL_MASK))
    with pytest.raises(Invalid) as caught:
        provider.check("m", ModelSpec(provider="openai", source="x", options={"api_key": "sk-123"}))
    assert caught.value.pointer == "/options/api_key"
    assert "sk-123" not in caught.value.message
