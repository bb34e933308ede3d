"""OpenAI's own client, unmodified, over a real server."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from goatherd.contracts.inference_tasks import MODEL_TASKS, Media, Task
from goatherd.contracts.inference_work import Problem
from goatherd.errors import Conflict, DeadlineExceeded, TooManyRequests, Unavailable
from tests.api.fake_inference import png, wav
from tests.api.inference_house import InferenceHouse, inference_house

CHAT = Task.CONVERSATIONAL.value
TEXT = Task.TEXT_GENERATION.value
VECTORS = Task.FEATURE_EXTRACTION.value
HEARS = Task.AUTOMATIC_SPEECH_RECOGNITION.value
SAYS = Task.TEXT_TO_SPEECH.value
DRAWS = Task.TEXT_TO_IMAGE.value
QUESTION: list[Any] = [{"role": "user", "content": "What do goats eat?"}]


@pytest.fixture(scope="module")
async def served() -> AsyncIterator[InferenceHouse]:
    async with inference_house(max_media_bytes=50_000, max_body_bytes=20_000) as house:
        yield house


@pytest.fixture
def house(served: InferenceHouse) -> InferenceHouse:
    return served.anew()


@pytest.fixture
async def client(house: InferenceHouse) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{house.url}/v1", api_key="none", max_retries=0, timeout=10) as client:
        yield client


@pytest.fixture
async def http(house: InferenceHouse) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=house.url) as client:
        yield client


def last_item(house: InferenceHouse) -> Any:
    return house.inference.calls[-1].items[-1]


def error_of(failure: pytest.ExceptionInfo[openai.APIStatusError]) -> dict[str, Any]:
    body: Any = failure.value.body
    assert body.keys() == {"message", "type", "param", "code"}
    return dict(body)


# -- chat


async def test_a_chat(house: InferenceHouse, client: AsyncOpenAI) -> None:
    messages: list[Any] = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What"}, {"type": "text", "text": "now?"}]},
    ]
    reply = await client.chat.completions.create(
        model=CHAT, messages=messages, temperature=0.5, top_p=0.9, seed=3, frequency_penalty=1, user="me", n=1
    )
    assert (reply.object, reply.model, reply.id[:9]) == ("chat.completion", CHAT, "chatcmpl-")
    (choice,) = reply.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == (
        "assistant",
        "Goats eat grass.",
        "stop",
    )
    assert choice.logprobs is None
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (7, 4, 11)
    item = last_item(house)
    assert item.inputs == {
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What\nnow?"}]
    }
    expected = {"temperature": 0.5, "top_p": 0.9, "seed": 3, "frequency_penalty": 1}
    assert item.parameters == expected


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_a_limit_by_either_name(house: InferenceHouse, client: AsyncOpenAI, name: str) -> None:
    more: Any = {name: 2}
    reply = await client.chat.completions.create(model=CHAT, messages=QUESTION, **more)
    assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == ("Goats eat", "length")
    assert last_item(house).parameters == {"max_tokens": 2}


@pytest.mark.parametrize("stop", ["grass", ["zzz", "grass"]])
async def test_texts_that_stop(client: AsyncOpenAI, stop: Any) -> None:
    reply = await client.chat.completions.create(model=CHAT, messages=QUESTION, stop=stop)
    assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == ("Goats eat", "stop")


async def test_logprobs(client: AsyncOpenAI) -> None:
    reply = await client.chat.completions.create(model=CHAT, messages=QUESTION, logprobs=True)
    assert reply.choices[0].logprobs is not None
    tokens = reply.choices[0].logprobs.content or []
    assert [(one.token, one.logprob) for one in tokens[:2]] == [("Goats", 0.0), (" eat", -0.5)]
    assert bytes(tokens[0].bytes or []) == b"Goats"


async def test_a_chat_streamed(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model=CHAT, messages=QUESTION, stream=True, stream_options={"include_usage": True}, logprobs=True
    )
    chunks = [chunk async for chunk in stream]
    assert len({chunk.id for chunk in chunks}) == 1
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    first, *middle, end, usage = chunks
    assert first.choices[0].delta.role == "assistant"
    assert [chunk.choices[0].delta.content for chunk in middle] == ["Goats", " eat", " grass", "."]
    assert middle[1].choices[0].logprobs is not None
    assert (middle[1].choices[0].logprobs.content or [])[0].logprob == -0.5
    assert (end.choices[0].finish_reason, end.usage) == ("stop", None)
    assert usage.usage is not None
    assert (usage.choices, usage.usage.total_tokens) == ([], 11)


async def test_what_pieces_missed_comes_at_the_end(house: InferenceHouse, client: AsyncOpenAI) -> None:
    house.inference.drop = 2
    stream = await client.chat.completions.create(model=CHAT, messages=QUESTION, stream=True)
    texts = [chunk.choices[0].delta.content async for chunk in stream]
    assert texts == ["", "Goats", " eat", " grass.", None]


async def test_the_stream_as_it_is_sent(http: httpx.AsyncClient) -> None:
    body = {"model": CHAT, "messages": QUESTION, "stream": True}
    answer = await http.post("/v1/chat/completions", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.startswith("data: {")
    assert answer.text.endswith("\n\ndata: [DONE]\n\n")


async def test_a_synchronous_client(house: InferenceHouse) -> None:
    def use() -> tuple[str, str, list[str]]:
        with OpenAI(base_url=f"{house.url}/v1", api_key="none", max_retries=0) as client:
            reply = client.chat.completions.create(model=CHAT, messages=QUESTION)
            stream = client.chat.completions.create(model=CHAT, messages=QUESTION, stream=True)
            text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
            return str(reply.choices[0].message.content), text, [one.id for one in client.models.list()]

    whole, streamed, names = await asyncio.to_thread(use)
    assert whole == streamed == "Goats eat grass."
    assert names == sorted(task.value for task in MODEL_TASKS)


async def test_a_client_at_a_models_address(house: InferenceHouse) -> None:
    house.inference.add("some/model", Task.CONVERSATIONAL)
    house.inference.add("a/b/c/vectors", Task.FEATURE_EXTRACTION)
    async with AsyncOpenAI(base_url=f"{house.url}/models/some/model/v1", api_key="none") as client:
        reply = await client.chat.completions.create(model="dummy", messages=QUESTION)
        assert reply.model == "some/model"
        completed = await client.completions.create(model="dummy", prompt="Goats")
        assert completed.model == "some/model"
        assert [one.id async for one in client.models.list()] == ["some/model"]
    async with AsyncOpenAI(base_url=f"{house.url}/models/a/b/c/vectors/v1", api_key="none") as client:
        vectors = await client.embeddings.create(model="dummy", input="a")
        assert vectors.model == "a/b/c/vectors"


# -- what only models of the provider `openai` do

TOOL: Any = {"type": "function", "function": {"name": "feed", "parameters": {"type": "object"}}}
CALL: Any = {"id": "call_1", "type": "function", "function": {"name": "feed", "arguments": "{}"}}
RESULT: list[Any] = [
    *QUESTION,
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "fed"},
]
PICTURE: list[Any] = [
    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]}
]


@pytest.mark.parametrize(
    ("more", "messages", "param"),
    [
        ({"tools": [TOOL]}, QUESTION, "tools"),
        ({"tool_choice": "required"}, QUESTION, "tool_choice"),
        ({"response_format": {"type": "json_object"}}, QUESTION, "response_format"),
        ({"logit_bias": {"1": 1}}, QUESTION, "logit_bias"),
        ({"logprobs": True, "top_logprobs": 2}, QUESTION, "top_logprobs"),
        ({"reasoning_effort": "low"}, QUESTION, "reasoning_effort"),
        ({}, RESULT, "messages[1].tool_calls"),
        ({}, PICTURE, "messages[0].content[0].type"),
        ({}, [{"role": "user", "content": None}], "messages[0].content"),
    ],
)
async def test_they_are_refused_for_others_and_passed_on_to_these(
    house: InferenceHouse, client: AsyncOpenAI, more: Any, messages: list[Any], param: str
) -> None:
    with pytest.raises(openai.UnprocessableEntityError, match="only the provider") as failure:
        await client.chat.completions.create(model=CHAT, messages=messages, **more)
    assert error_of(failure)["param"] == param
    assert error_of(failure)["code"] == "unsupported_parameter"
    house.inference.provider = "openai"
    await client.chat.completions.create(model=CHAT, messages=messages, **more)
    passed_on = last_item(house).parameters["passed_on"]
    more.pop("logprobs", None)
    assert passed_on == (more or {"messages": messages})


async def test_what_asks_for_nothing_is_taken(house: InferenceHouse, client: AsyncOpenAI) -> None:
    await client.chat.completions.create(
        model=CHAT,
        messages=QUESTION,
        tools=[],
        tool_choice="none",
        response_format={"type": "text"},
        modalities=["text"],
        logit_bias={},
        store=False,
        metadata={"a": "b"},
    )
    assert last_item(house).parameters == {}


async def test_tool_calls_come_back(house: InferenceHouse, client: AsyncOpenAI) -> None:
    house.inference.provider = "openai"
    house.inference.passed_on = {"tool_calls": [{"index": 0, **CALL}], "finish_reason": "tool_calls"}
    reply = await client.chat.completions.create(model=CHAT, messages=QUESTION, tools=[TOOL])
    (choice,) = reply.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls is not None
    assert choice.message.tool_calls[0].model_dump(exclude_unset=True) == CALL


@pytest.mark.parametrize("missed", [0, 5])
async def test_tool_calls_come_in_pieces_or_at_the_end(
    house: InferenceHouse, client: AsyncOpenAI, missed: int
) -> None:
    house.inference.provider = "openai"
    house.inference.passed_on = {"tool_calls": [{"index": 0, **CALL}], "finish_reason": "tool_calls"}
    house.inference.drop = missed
    stream = await client.chat.completions.create(model=CHAT, messages=QUESTION, tools=[TOOL], stream=True)
    chunks = [chunk async for chunk in stream]
    calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    assert [call.id for call in calls] == ["call_1"]
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize("shown", [0, 1, 2])
async def test_tool_calls_of_which_pieces_were_missed_are_made_whole(
    house: InferenceHouse, client: AsyncOpenAI, shown: int
) -> None:
    house.inference.provider = "openai"
    function = {"name": "weather", "arguments": '{"city": "Bern"}'}
    call = {"index": 0, "id": "call_1", "type": "function", "function": function}
    house.inference.passed_on = {"tool_calls": [call], "finish_reason": "tool_calls"}
    begun = {**call, "function": {**function, "arguments": '{"city": '}}
    ended = {"index": 0, "function": {"arguments": '"Bern"}'}}
    house.inference.passed_in_pieces = [{"tool_calls": [begun]}, {"tool_calls": [ended]}][:shown]
    stream = await client.chat.completions.create(model=CHAT, messages=QUESTION, tools=[TOOL], stream=True)
    chunks = [chunk async for chunk in stream]
    calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    assert "".join(one.function.arguments or "" for one in calls if one.function) == function["arguments"]
    assert [one.id for one in calls if one.id] == ["call_1"]


# -- completions


async def test_completions(house: InferenceHouse, client: AsyncOpenAI) -> None:
    reply = await client.completions.create(model=TEXT, prompt="What?", max_tokens=2, stop="zzz", seed=1)
    assert (reply.object, reply.choices[0].text, reply.choices[0].finish_reason) == (
        "text_completion",
        "Goats eat",
        "stop",
    )
    assert last_item(house).inputs == "What?"
    assert last_item(house).parameters == {"seed": 1, "max_new_tokens": 2, "stop": ["zzz"]}
    several = await client.completions.create(
        model=TEXT, prompt=["A", "B"], echo=True, logprobs=0, max_tokens=2
    )
    assert [(one.index, one.text) for one in several.choices] == [(0, "AGoats eat"), (1, "BGoats eat")]
    assert several.choices[0].logprobs is not None
    assert several.choices[0].logprobs.tokens == ["Goats", " eat"]
    assert several.choices[0].logprobs.text_offset == [1, 6]
    assert several.usage is not None
    assert several.usage.completion_tokens == 4


async def test_completions_streamed(client: AsyncOpenAI) -> None:
    stream = await client.completions.create(
        model=TEXT, prompt="A", echo=True, logprobs=0, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert [one.text for chunk in chunks for one in chunk.choices] == [
        "A",
        "Goats",
        " eat",
        " grass",
        ".",
        "",
    ]
    assert chunks[2].choices[0].logprobs is not None
    assert chunks[2].choices[0].logprobs.text_offset == [6]
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None


# -- vectors


async def test_vectors_come_as_base64_or_numbers(house: InferenceHouse, client: AsyncOpenAI) -> None:
    # The client asks for base64 by itself, and decodes it.
    made = await client.embeddings.create(model=VECTORS, input="Goat")
    assert made.data[0].embedding == pytest.approx([4, 2, 4 / 3, 1], rel=1e-6)
    assert (made.object, made.model, made.usage.prompt_tokens, made.usage.total_tokens) == (
        "list",
        VECTORS,
        5,
        5,
    )
    numbers = await client.embeddings.create(
        model=VECTORS, input=["a", "ab"], encoding_format="float", dimensions=2
    )
    assert [(one.index, one.embedding) for one in numbers.data] == [(0, [1.0, 0.5]), (1, [2.0, 1.0])]
    assert [item.parameters for item in house.inference.calls[-1].items] == [{"dimensions": 2}] * 2


async def test_base64_is_little_endian(http: httpx.AsyncClient) -> None:
    body = {"model": VECTORS, "input": "a", "encoding_format": "base64", "dimensions": 1}
    answer = (await http.post("/v1/embeddings", json=body)).json()
    assert base64.b64decode(answer["data"][0]["embedding"]) == b"\x00\x00\x80\x3f"


async def test_more_dimensions_than_the_model_has_are_pointed_at(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/embeddings", json={"model": VECTORS, "input": "a", "dimensions": 5})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "dimensions")


# -- sounds


async def test_transcriptions(house: InferenceHouse, client: AsyncOpenAI) -> None:
    heard = await client.audio.transcriptions.create(
        model=HEARS, file=("a.wav", wav()), language="en", prompt="On goats:", temperature=0.2
    )
    assert heard.text == "Goats climb. They eat."
    assert (
        last_item(house).inputs == Media(data=wav(), mime="audio/x-wav")
        or last_item(house).inputs.data == wav()
    )
    assert last_item(house).parameters == {"language": "en", "prompt": "On goats:", "temperature": 0.2}


async def test_transcriptions_as_text_and_subtitles(house: InferenceHouse, client: AsyncOpenAI) -> None:
    text: Any = await client.audio.transcriptions.create(model=HEARS, file=wav(), response_format="text")
    assert text == "Goats climb. They eat.\n"
    srt: Any = await client.audio.transcriptions.create(model=HEARS, file=wav(), response_format="srt")
    assert srt == (
        "1\n00:00:00,000 --> 00:00:01,000\nGoats climb.\n\n2\n00:00:01,200 --> 00:00:02,500\nThey eat.\n\n"
    )
    vtt: Any = await client.audio.transcriptions.create(model=HEARS, file=wav(), response_format="vtt")
    assert vtt.startswith("WEBVTT\n\n00:00:00.000 --> 00:00:01.000\nGoats climb.\n\n")
    assert last_item(house).parameters == {"return_timestamps": True}


async def test_transcriptions_in_every_detail(house: InferenceHouse, client: AsyncOpenAI) -> None:
    verbose = await client.audio.transcriptions.create(
        model=HEARS, file=wav(), response_format="verbose_json"
    )
    assert (verbose.language, verbose.duration, verbose.words) == ("english", 2.5, None)
    assert [(one.id, one.start, one.end, one.text) for one in verbose.segments or []] == [
        (0, 0.0, 1.0, "Goats climb."),
        (1, 1.2, 2.5, " They eat."),
    ]
    words = await client.audio.transcriptions.create(
        model=HEARS, file=wav(), response_format="verbose_json", timestamp_granularities=["word", "segment"]
    )
    assert [(one.word, one.start, one.end) for one in words.words or []] == [
        ("Goats", 0.0, 0.5),
        ("climb.", 0.5, 1.0),
        ("They", 1.2, 1.5),
        ("eat.", 1.5, 2.5),
    ]
    assert [(one.start, one.end, one.text) for one in words.segments or []] == [
        (0.0, 1.0, "Goats climb."),
        (1.2, 2.5, " They eat."),
    ]
    assert last_item(house).parameters == {"return_timestamps": "word"}
    only = await client.audio.transcriptions.create(
        model=HEARS, file=wav(), response_format="verbose_json", timestamp_granularities=["word"]
    )
    assert only.segments is None


# The client says so of this method.
@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
async def test_translations(house: InferenceHouse, client: AsyncOpenAI) -> None:
    heard = await client.audio.translations.create(model=HEARS, file=wav())
    assert heard.text == "Goats climb. They eat."
    assert last_item(house).parameters == {"task": "translate"}
    verbose = await client.audio.translations.create(model=HEARS, file=wav(), response_format="verbose_json")
    assert verbose.segments


@pytest.mark.parametrize(
    ("format", "kind"),
    [
        (None, "audio/mpeg"),
        ("wav", "audio/wav"),
        ("opus", "audio/ogg"),
        ("flac", "audio/flac"),
        ("pcm", "audio/pcm"),
    ],
)
async def test_speech(house: InferenceHouse, client: AsyncOpenAI, format: Any, kind: str) -> None:
    more: Any = {} if format is None else {"response_format": format}
    said = await client.audio.speech.create(model=SAYS, input="Goats", voice="alloy", speed=1.5, **more)
    assert (said.content, said.response.headers["content-type"]) == (wav(5), kind)
    assert last_item(house).parameters == {"format": format or "mp3", "speed": 1.5}


async def test_a_voice_of_the_models_own_is_heard(house: InferenceHouse, client: AsyncOpenAI) -> None:
    await client.audio.speech.create(model=SAYS, input="a", voice="heidi")
    assert last_item(house).parameters["voice"] == "heidi"
    house.inference.provider = "openai"
    await client.audio.speech.create(model=SAYS, input="a", voice="alloy")
    assert last_item(house).parameters["voice"] == "alloy"


async def test_speech_streamed(house: InferenceHouse, client: AsyncOpenAI) -> None:
    asked = client.audio.speech.with_streaming_response.create(model=SAYS, input="Goats", voice="alloy")
    async with asked as answer:
        assert b"".join([part async for part in answer.iter_bytes()]) == wav(5)


# -- images


async def test_images(house: InferenceHouse, client: AsyncOpenAI) -> None:
    made = await client.images.generate(
        model=DRAWS, prompt="A goat.", n=2, size="8x8", extra_body={"seed": 3}
    )
    images = [base64.b64decode(one.b64_json or "") for one in made.data or []]
    assert images == [png(3, 8), png(4, 8)]
    assert last_item(house).parameters == {"width": 8, "height": 8, "seed": 4}


async def test_images_of_no_model_are_made_by_the_first(house: InferenceHouse, client: AsyncOpenAI) -> None:
    made = await client.images.generate(prompt="A goat.", size="auto", response_format="b64_json")
    assert base64.b64decode((made.data or [])[0].b64_json or "") == png(0)
    assert house.inference.calls[-1].model == DRAWS


# -- models


async def test_models(house: InferenceHouse, client: AsyncOpenAI) -> None:
    house.inference.add("some/model", Task.FILL_MASK)
    model = await client.models.retrieve("some/model")
    assert (model.id, model.object, model.owned_by) == ("some/model", "model", "goatherd")
    assert model.model_extra == {"task": "fill-mask"}
    with pytest.raises(openai.NotFoundError, match="no model 'none'"):
        await client.models.retrieve("none")


# -- errors


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("chat/completions", {"messages": QUESTION}, "model"),
        ("chat/completions", {"model": CHAT}, "messages"),
        ("chat/completions", {"model": CHAT, "messages": []}, "messages"),
        ("chat/completions", {"model": CHAT, "messages": QUESTION, "temprature": 1}, "temprature"),
        ("chat/completions", {"model": CHAT, "messages": QUESTION, "temperature": 3}, "temperature"),
        ("chat/completions", {"model": CHAT, "messages": QUESTION, "n": 2}, "n"),
        ("chat/completions", {"model": CHAT, "messages": QUESTION, "stop": ["a"] * 5}, "stop"),
        (
            "chat/completions",
            {"model": CHAT, "messages": [{"role": "goat", "content": "x"}]},
            "messages[0].role",
        ),
        (
            "chat/completions",
            {"model": CHAT, "messages": QUESTION, "max_tokens": 1, "max_completion_tokens": 2},
            "max_tokens",
        ),
        (
            "chat/completions",
            {"model": CHAT, "messages": QUESTION, "stream_options": {"include_usage": True}},
            "stream_options",
        ),
        ("completions", {"model": TEXT, "prompt": ""}, "prompt"),
        ("completions", {"model": TEXT, "prompt": ["a", ""]}, "prompt[1]"),
        ("completions", {"model": TEXT, "prompt": [1, 2]}, "prompt"),
        ("completions", {"model": TEXT, "prompt": ["a", "b"], "stream": True}, "prompt"),
        ("completions", {"model": TEXT, "prompt": "a", "logprobs": 3}, "logprobs"),
        ("completions", {"model": TEXT, "prompt": "a", "suffix": "x"}, "suffix"),
        ("embeddings", {"model": VECTORS, "input": []}, "input"),
        ("embeddings", {"model": VECTORS, "input": ""}, "input"),
        ("embeddings", {"model": VECTORS, "input": [[1, 2]]}, "input"),
        ("embeddings", {"model": VECTORS, "input": "a", "encoding_format": "hex"}, "encoding_format"),
        ("audio/speech", {"model": SAYS, "input": ""}, "input"),
        ("audio/speech", {"model": SAYS, "input": "a", "response_format": "aac"}, "response_format"),
        ("audio/speech", {"model": SAYS, "input": "a", "instructions": "loud"}, "instructions"),
        ("images/generations", {"model": DRAWS, "prompt": "a", "size": "9"}, "size"),
        ("images/generations", {"model": DRAWS, "prompt": "a", "size": "4096x4096"}, "size"),
        ("images/generations", {"model": DRAWS, "prompt": "a", "response_format": "url"}, "response_format"),
    ],
)
async def test_what_is_wrong_is_said_and_where(
    client: AsyncOpenAI, path: str, body: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as failure:
        await client.post(f"/{path}", cast_to=object, body=body)
    error = error_of(failure)
    assert error["type"] == "invalid_request_error"
    assert str(error["param"]).startswith(param)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "model"),
        ({"model": HEARS, "response_format": "xml"}, "response_format"),
        ({"model": HEARS, "temperature": "hot"}, "temperature"),
        ({"model": HEARS, "colour": "red"}, "colour"),
        ({"model": HEARS, "stream": "true"}, "stream"),
        ({"model": HEARS, "timestamp_granularities[]": "word"}, "timestamp_granularities"),
        ({"model": HEARS, "file": "a text"}, "file"),
    ],
)
async def test_what_is_wrong_in_a_form(http: httpx.AsyncClient, fields: dict[str, str], param: str) -> None:
    files = {"other" if "file" in fields else "file": wav()}
    if "file" in fields:
        files = {}
        headers = {"content-type": "multipart/form-data; boundary=x"}
        content = "".join(
            f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in fields.items()
        )
        answer = await http.post("/v1/audio/transcriptions", content=f"{content}--x--\r\n", headers=headers)
    else:
        answer = await http.post("/v1/audio/transcriptions", data=fields, files=files)
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"]["param"] == param


async def test_other_errors_have_the_shape_too(http: httpx.AsyncClient) -> None:
    for method, path, status, code in [
        ("GET", "/v1/nothing", 404, "route_not_found"),
        ("PUT", "/v1/models", 405, "method_not_allowed"),
        ("GET", "/v1/models?limit=1", 422, "unknown_parameter"),
        ("POST", "/v1/audio/translations", 415, "unsupported_media_type"),
        ("POST", "/v1/embeddings", 422, "invalid"),
    ]:
        answer = await http.request(method, path)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (status, code)
        assert error.keys() == {"message", "type", "param", "code"}
    large = await http.post("/v1/embeddings", content=b"x" * 200_000)
    assert (large.status_code, large.json()["error"]["code"]) == (413, "body_too_large")
    broken = await http.post("/v1/embeddings", content=b"{", headers={"content-type": "application/json"})
    assert (broken.status_code, broken.json()["error"]["code"]) == (400, "malformed_json")
    form = await http.post("/v1/audio/translations", data={"model": HEARS}, files={"file": b"x" * 50_001})
    assert (form.status_code, form.json()["error"]["code"]) == (413, "body_too_large")


async def test_a_model_that_is_none_and_one_that_is_for_other_things(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        await client.chat.completions.create(model="none", messages=QUESTION)
    assert error_of(missing)["code"] == "model_not_found"
    assert error_of(missing)["param"] == "model"
    with pytest.raises(openai.UnprocessableEntityError) as wrong:
        await client.chat.completions.create(model=VECTORS, messages=QUESTION, stream=True)
    assert error_of(wrong)["code"] == "wrong_task"


async def test_what_concerns_all_is_an_error_of_the_clients(
    house: InferenceHouse, client: AsyncOpenAI
) -> None:
    house.inference.fault = TooManyRequests("Too much.")
    with pytest.raises(openai.RateLimitError) as limited:
        await client.chat.completions.create(model=CHAT, messages=QUESTION)
    assert error_of(limited)["type"] == "rate_limit_error"
    assert limited.value.response.headers["retry-after"] == "1"
    house.inference.fault = Unavailable("Down.", retry_after_s=9)
    with pytest.raises(openai.InternalServerError, match="Down") as down:
        await client.chat.completions.create(model=CHAT, messages=QUESTION, stream=True)
    assert (down.value.status_code, down.value.response.headers["retry-after"]) == (503, "9")
    house.inference.fault = DeadlineExceeded("Late.")
    with pytest.raises(openai.InternalServerError) as late:
        await client.embeddings.create(model=VECTORS, input="a")
    assert late.value.status_code == 504
    house.inference.fault = Conflict("Changed.")
    with pytest.raises(openai.ConflictError) as conflict:
        await client.with_options(max_retries=2).embeddings.create(model=VECTORS, input="a")
    assert conflict.value.response.headers["x-should-retry"] == "false"
    assert len(house.inference.calls) == 4


async def test_an_input_without_a_result_says_which(house: InferenceHouse, client: AsyncOpenAI) -> None:
    house.inference.problem = Problem(code="too-long", message="Too long.")
    with pytest.raises(openai.UnprocessableEntityError) as failure:
        await client.embeddings.create(model=VECTORS, input=["a", "b"])
    assert (error_of(failure)["param"], error_of(failure)["code"]) == ("input[1]", "context_length_exceeded")


async def test_an_error_in_a_stream_is_raised_by_the_client(
    house: InferenceHouse, client: AsyncOpenAI
) -> None:
    house.inference.late = Unavailable("The worker is gone.")
    chats = aiter(await client.chat.completions.create(model=CHAT, messages=QUESTION, stream=True))
    assert (await anext(chats)).choices[0].delta.content == ""
    assert (await anext(chats)).choices[0].delta.content == "Goats"
    with pytest.raises(openai.APIError, match="The worker is gone"):
        await anext(chats)
    texts = aiter(await client.completions.create(model=TEXT, prompt="a", stream=True))
    assert (await anext(texts)).choices[0].text == "Goats"
    with pytest.raises(openai.APIError, match="The worker is gone"):
        await anext(texts)


# -- clients that leave


async def test_who_closes_a_stream_ends_the_work(house: InferenceHouse, client: AsyncOpenAI) -> None:
    house.inference.gate = asyncio.Event()
    stream = await client.chat.completions.create(model=CHAT, messages=QUESTION, stream=True)
    chunks = aiter(stream)
    await anext(chunks)
    await stream.close()
    async with asyncio.timeout(10):
        await house.inference.cancelled.wait()


async def test_who_gives_up_waiting_ends_the_work(house: InferenceHouse, client: AsyncOpenAI) -> None:
    house.inference.gate = asyncio.Event()
    async with asyncio.timeout(10):
        asking = asyncio.create_task(client.embeddings.create(model=VECTORS, input="a"))
        await house.inference.begun.wait()
        asking.cancel()
        await asyncio.wait({asking})
        await house.inference.cancelled.wait()
