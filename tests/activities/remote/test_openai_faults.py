"""The provider `openai` against llmock: a stand-in for the API that fails on demand, and calls tools."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from llmock.pytest_plugin import LLMock

from activities.backends.openai_models import OpenAIProvider
from activities.inference_ports import LoadedModel
from activities.ports import ChatModel, ChatRequest
from goatherd.contracts.inference import ChatTurn, Chunk, Finish, Generation, ModelSpec
from goatherd.contracts.inference_tasks import Task
from goatherd.errors import GoatherdError, Invalid, TooManyRequests, Unavailable
from tests.activities.contract_chat_model import asking, reply
from tests.activities.remote.loading import item, loaded, outputs, run

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def spec_of(llmock: LLMock, task: Task = Task.CONVERSATIONAL, **options: Any) -> ModelSpec:
    return ModelSpec(
        provider="openai", source="gpt-4o", task=task, options={"base_url": llmock.base_url(), **options}
    )


@pytest.fixture
async def model(llmock: LLMock) -> AsyncIterator[LoadedModel]:
    async with loaded(OpenAIProvider(), spec_of(llmock)) as model:
        yield model


@pytest.fixture
def chat(model: LoadedModel) -> ChatModel:
    assert model.chat is not None
    return model.chat


def passing(content: str, **passed_on: Any) -> ChatRequest:
    return ChatRequest([ChatTurn(role="user", content=content)], Generation(), passed_on=passed_on)


async def test_reply_streams_and_is_counted(llmock: LLMock, chat: ChatModel) -> None:
    llmock.reply("Goats eat leaves, twigs and grass.")
    got = await reply(chat, asking("What do goats eat?"))
    assert got.text == "Goats eat leaves, twigs and grass."
    assert len(got.chunks) > 3
    assert got.finish is not None
    assert got.finish.reason == "stop"
    assert min(got.finish.usage.prompt_tokens, got.finish.usage.completion_tokens) > 0


async def test_call_of_a_tool_comes_back_in_pieces_and_whole(llmock: LLMock, chat: ChatModel) -> None:
    llmock.call_tool("get_weather", {"city": "Paris"})
    pieces: list[dict[str, Any]] = []
    finish: Finish | None = None
    async for one in chat.stream(passing("Weather in Paris?", tools=[TOOL], tool_choice="auto")):
        if isinstance(one, Chunk):
            assert one.text == ""
            pieces += (one.passed_on or {})["tool_calls"]
        else:
            finish = one
    assert len(pieces) > 1
    arguments = "".join(piece["function"].get("arguments", "") for piece in pieces)
    assert json.loads(arguments) == {"city": "Paris"}
    assert finish is not None
    assert finish.reason == "stop"
    assert finish.passed_on is not None
    assert finish.passed_on["finish_reason"] == "tool_calls"
    [call] = finish.passed_on["tool_calls"]
    assert call["function"] == {"name": "get_weather", "arguments": arguments}
    assert call["id"] == pieces[0]["id"]
    assert llmock.last_request.body["tools"] == [TOOL]


async def test_messages_that_are_passed_on_stand_for_the_turns(llmock: LLMock, chat: ChatModel) -> None:
    messages = [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
    ]
    await reply(chat, passing("not sent", messages=messages, tools=[TOOL]))
    assert llmock.last_request.body["messages"] == messages


async def test_reply_keeps_to_the_schema_that_is_passed_on(chat: ChatModel) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name", "age"],
    }
    wish = {"type": "json_schema", "json_schema": {"name": "goat", "schema": schema, "strict": True}}
    got = await reply(chat, passing("Describe a goat.", response_format=wish))
    said = json.loads(got.text)
    assert isinstance(said["name"], str)
    assert isinstance(said["age"], int)


async def test_too_many_requests_say_when_to_come_back(llmock: LLMock, chat: ChatModel) -> None:
    llmock.rate_limit(retry_after=7.0)
    with pytest.raises(TooManyRequests) as caught:
        await reply(chat, asking("hello"))
    assert caught.value.retry_after_s == 7.0


@pytest.mark.parametrize("status", [500, 502, 503, 529])
async def test_server_that_fails_is_unavailable(llmock: LLMock, chat: ChatModel, status: int) -> None:
    llmock.fail(status)
    with pytest.raises(Unavailable):
        await reply(chat, asking("hello"))
    assert len(llmock.requests) == 1
    assert (await reply(chat, asking("hello"))).finish is not None


@pytest.mark.parametrize("status", [400, 404, 422])
async def test_request_that_makes_no_sense_is_invalid(llmock: LLMock, chat: ChatModel, status: int) -> None:
    llmock.fail(status, message="no such thing")
    with pytest.raises(Invalid, match="no such thing"):
        await reply(chat, asking("hello"))


@pytest.mark.parametrize("status", [401, 403])
async def test_refused_key_makes_the_model_unavailable(llmock: LLMock, chat: ChatModel, status: int) -> None:
    llmock.fail(status, message="wrong key llmock-test-key")
    with pytest.raises(Unavailable) as caught:
        await reply(chat, asking("hello"))
    assert caught.value.code == "model-unavailable"
    assert "llmock-test-key" not in caught.value.message


@pytest.mark.parametrize("fault", ["disconnect", "truncate", "corrupt"])
async def test_stream_that_breaks_is_unavailable_after_what_came(
    llmock: LLMock, chat: ChatModel, fault: str
) -> None:
    llmock.reply("one two three four five six")
    getattr(llmock, fault)(after_chunks=3)
    came: list[str] = []

    async def read() -> None:
        async for one in chat.stream(asking("count")):
            assert isinstance(one, Chunk), "a broken reply has no finish"
            came.append(one.text)

    with pytest.raises(Unavailable):
        await read()
    assert "".join(came).startswith("one")


async def test_server_that_says_nothing_is_given_up(llmock: LLMock) -> None:
    llmock.stall(after_chunks=1, seconds=5.0)
    async with loaded(OpenAIProvider(), spec_of(llmock, timeout_s=0.3)) as model:
        assert model.chat is not None
        with pytest.raises(Unavailable, match=r"0\.3 s"):
            await reply(model.chat, asking("hello"))


async def test_retries_are_made_where_the_options_wish_for_them(llmock: LLMock) -> None:
    llmock.fail(503, retry_after=0.01)
    async with loaded(OpenAIProvider(), spec_of(llmock, max_retries=1)) as model:
        assert model.chat is not None
        assert (await reply(model.chat, asking("hello"))).finish is not None
    assert len(llmock.requests) == 2


async def test_vectors_and_images_come_from_it_as_well(llmock: LLMock) -> None:
    task = Task.FEATURE_EXTRACTION
    async with loaded(OpenAIProvider(), spec_of(llmock, task)) as model:
        one, other, again = await outputs(model, task, *(item(task, text) for text in ("a", "b", "a")))
    assert one.shape == [1536]
    assert one.data == again.data != other.data
    async with loaded(OpenAIProvider(), spec_of(llmock, Task.TEXT_TO_IMAGE)) as model:
        [image] = await outputs(model, Task.TEXT_TO_IMAGE, item(Task.TEXT_TO_IMAGE, "a goat"))
    assert image.mime == "image/svg+xml"
    assert b"a goat" in image.data
    assert base64.b64encode(image.data)


async def test_error_of_one_item_does_not_reach_the_others(llmock: LLMock) -> None:
    llmock.fail(400, times=1)
    task = Task.TEXT_TO_IMAGE
    async with loaded(OpenAIProvider(), spec_of(llmock, task, concurrency=1)) as model:
        first, second = await run(model, task, item(task, "one"), item(task, "two"))
    assert isinstance(first, Invalid)
    assert not isinstance(second, GoatherdError)
