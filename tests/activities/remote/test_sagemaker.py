"""The provider `sagemaker`: the real SDK, against a server that speaks the runtime's wire."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any

import pytest
from fastapi import Response
from fastapi.responses import JSONResponse

from activities.backends.sagemaker import SageMakerProvider
from activities.inference_ports import LoadedModel, Made
from activities.ports import ChatModel, ChatRequest
from goatherd.contracts.inference import ChatTurn, Chunk, Finish, Generation, ModelSpec
from goatherd.contracts.inference_tasks import SHAPES, Media, Task
from goatherd.errors import GoatherdError, Invalid, TooManyRequests, Unavailable, WrongTask
from tests.activities.contract_chat_model import GREEDY, asking, reply
from tests.activities.remote.loading import item, loaded, outputs, run
from tests.activities.remote.sagemaker_server import SageMakerServer, failure, framed
from tests.activities.remote.serving import serving

PNG = b"\x89PNG\r\n\x1a\nimage"


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "goat")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


class House:
    def __init__(self, server: SageMakerServer, url: str, stack: AsyncExitStack) -> None:
        self.server = server
        self._url = url
        self._stack = stack

    async def model(self, task: Task, source: str = "it", **options: Any) -> LoadedModel:
        given = {"endpoint_url": self._url, "region": "eu-west-1", **options}
        spec = ModelSpec(provider="sagemaker", source=source, task=task, options=given)
        return await self._stack.enter_async_context(loaded(SageMakerProvider(), spec))

    async def chat(self, task: Task, source: str, **options: Any) -> ChatModel:
        model = await self.model(task, source, **options)
        assert model.chat is not None
        return model.chat

    def answers(self, given: Any) -> None:
        self.server.containers["it"] = lambda _: given if isinstance(given, Response) else JSONResponse(given)


@pytest.fixture
async def house() -> AsyncIterator[House]:
    server = SageMakerServer()
    async with serving(server.app) as url, AsyncExitStack() as stack:
        yield House(server, url, stack)


LABEL = {"label": "POSITIVE", "score": 0.9}
CASES: list[tuple[Task, Any, dict[str, Any], Any, Any]] = [
    (Task.TEXT_CLASSIFICATION, "good", {}, [LABEL], [LABEL]),
    (Task.TEXT_CLASSIFICATION, "good", {"top_k": 1}, [[LABEL]], [LABEL]),
    (Task.SUMMARIZATION, "long", {}, [{"summary_text": "short"}], {"summary_text": "short"}),
    (Task.TRANSLATION, "goat", {}, [{"translation_text": "Ziege"}], {"translation_text": "Ziege"}),
    (
        Task.ZERO_SHOT_CLASSIFICATION,
        "milk",
        {"candidate_labels": ["goat", "car"]},
        {"sequence": "milk", "labels": ["goat", "car"], "scores": [0.8, 0.2]},
        [{"label": "goat", "score": 0.8}, {"label": "car", "score": 0.2}],
    ),
    (
        Task.QUESTION_ANSWERING,
        {"question": "who?", "context": "a goat"},
        {},
        {"answer": "goat", "score": 0.5, "start": 2, "end": 6},
        [{"answer": "goat", "score": 0.5, "start": 2, "end": 6}],
    ),
    (
        Task.FILL_MASK,
        "a [MASK]",
        {},
        [{"score": 0.5, "token": 7, "token_str": "goat", "sequence": "a goat"}],
        [{"score": 0.5, "token": 7, "token_str": "goat", "sequence": "a goat"}],
    ),
    (
        Task.SENTENCE_SIMILARITY,
        {"source_sentence": "a", "sentences": ["b", "c"]},
        {},
        {"similarities": [0.5, 0.25]},
        [0.5, 0.25],
    ),
]


@pytest.mark.parametrize(("task", "inputs", "parameters", "answer", "expected"), CASES)
async def test_task_goes_as_the_toolkit_has_it(
    house: House, task: Task, inputs: Any, parameters: dict[str, Any], answer: Any, expected: Any
) -> None:
    house.answers(answer)
    [result] = await run(await house.model(task), task, item(task, inputs, **parameters))
    assert isinstance(result, Made)
    assert SHAPES[task].read_output.dump_python(result.output, exclude_none=True) == expected
    sent = house.server.asked[-1].json
    assert sent["inputs"] == inputs
    assert sent.get("parameters", {}) == parameters


async def test_options_become_the_calls_headers(house: House) -> None:
    house.answers([LABEL])
    task = Task.TEXT_CLASSIFICATION
    wish = {"inference_component": "part", "target_variant": "blue", "target_model": "m.tar.gz"}
    await outputs(await house.model(task, **wish), task, item(task, "hi"))
    headers = house.server.asked[-1].headers
    assert headers["x-amzn-sagemaker-inference-component"] == "part"
    assert headers["x-amzn-sagemaker-target-variant"] == "blue"
    assert headers["x-amzn-sagemaker-target-model"] == "m.tar.gz"
    assert "eu-west-1/sagemaker" in headers["authorization"]


async def test_file_goes_as_it_is_or_with_parameters_in_json(house: House) -> None:
    house.answers([LABEL])
    task = Task.IMAGE_CLASSIFICATION
    model = await house.model(task)
    await outputs(model, task, item(task, Media(data=PNG)))
    assert house.server.asked[-1].body == PNG
    assert house.server.asked[-1].headers["content-type"] == "image/png"
    await outputs(model, task, item(task, Media(data=PNG), top_k=1))
    sent = house.server.asked[-1].json
    assert base64.b64decode(sent["inputs"]) == PNG
    assert sent["parameters"] == {"top_k": 1}


async def test_sound_is_heard(house: House) -> None:
    house.answers({"text": "a goat", "chunks": [{"text": "a goat", "timestamp": [0.0, 1.5]}]})
    task = Task.AUTOMATIC_SPEECH_RECOGNITION
    [made] = await outputs(await house.model(task), task, item(task, Media(data=b"fLaC")))
    assert made.text == "a goat"
    assert made.chunks[0].timestamp == (0.0, 1.5)
    assert house.server.asked[-1].headers["content-type"] == "audio/flac"


@pytest.mark.parametrize(
    "answer",
    [
        Response(PNG, media_type="image/png"),
        JSONResponse({"generated_image": base64.b64encode(PNG).decode()}),
        JSONResponse([base64.b64encode(PNG).decode()]),
    ],
)
async def test_image_comes_as_bytes_or_in_json(house: House, answer: Response) -> None:
    house.answers(answer)
    task = Task.TEXT_TO_IMAGE
    [made] = await outputs(await house.model(task), task, item(task, "a goat"))
    assert made.data == PNG


TOKENS = [[[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]]]


@pytest.mark.parametrize(
    ("answer", "parameters", "shape", "numbers"),
    [
        (TOKENS, {}, [2], [1.0, 1.0]),
        (TOKENS, {"pooling": "cls"}, [2], [1.0, 0.0]),
        (TOKENS, {"pooling": "max", "dimensions": 1}, [1], [1.0]),
        (TOKENS, {"pooling": "none"}, [3, 2], [1.0, 0.0, 0.0, 1.0, 2.0, 2.0]),
        ([3.0, 4.0], {"normalize": True}, [2], [0.6, 0.8]),
        ({"vectors": [3.0, 4.0]}, {}, [2], [3.0, 4.0]),
    ],
)
async def test_vectors_of_tokens_are_pooled_here(
    house: House, answer: Any, parameters: dict[str, Any], shape: list[int], numbers: list[float]
) -> None:
    house.answers(answer)
    task = Task.FEATURE_EXTRACTION
    [made] = await outputs(await house.model(task), task, item(task, "goat", **parameters))
    assert made.shape == shape
    assert struct.unpack(f"<{len(numbers)}f", made.data) == pytest.approx(numbers)
    assert "parameters" not in house.server.asked[-1].json


ERRORS: list[tuple[Response, type[GoatherdError], str]] = [
    (
        failure(
            424, "ModelError", "Received client error", OriginalStatusCode=400, OriginalMessage="bad text"
        ),
        Invalid,
        "bad text",
    ),
    (
        failure(
            424, "ModelError", "Received server error", OriginalStatusCode=500, OriginalMessage="no memory"
        ),
        Unavailable,
        "no memory",
    ),
    (failure(400, "ValidationError", "Endpoint it of account 1 not found."), Unavailable, "not found"),
    (failure(400, "ValidationError", "Body is too large"), Invalid, "too large"),
    (failure(400, "ThrottlingException", "Rate exceeded"), TooManyRequests, "Rate"),
    (failure(403, "AccessDeniedException", "User arn:secret is not authorized"), Unavailable, "refused"),
    (failure(429, "ModelNotReadyException", "wait"), TooManyRequests, "wait"),
    (failure(503, "ServiceUnavailable", "down"), Unavailable, "down"),
    (failure(500, "InternalFailure", "oh"), Unavailable, "oh"),
]


@pytest.mark.parametrize(("answer", "kind", "said"), ERRORS)
async def test_error_says_whose_it_is(
    house: House, answer: Response, kind: type[GoatherdError], said: str
) -> None:
    house.answers(answer)
    task = Task.TEXT_CLASSIFICATION
    [result] = await run(await house.model(task), task, item(task, "hi"))
    assert isinstance(result, kind)
    assert said in result.message
    assert "arn:secret" not in result.message


async def test_item_that_fails_fails_alone(house: House) -> None:
    bad = failure(424, "ModelError", "no", OriginalStatusCode=400, OriginalMessage="no")
    house.server.containers["it"] = lambda asked: (
        bad if asked.json["inputs"] == "bad" else JSONResponse([LABEL])
    )
    task = Task.TEXT_CLASSIFICATION
    model = await house.model(task)
    first, second, third = await run(model, task, *(item(task, text) for text in ("a", "bad", "c")))
    assert isinstance(first, Made)
    assert isinstance(second, Invalid)
    assert isinstance(third, Made)


@pytest.mark.parametrize("answer", [{"what": "is this"}, [], "text", None])
async def test_answer_of_another_shape_is_an_error(house: House, answer: Any) -> None:
    house.answers(answer if answer is not None else Response(b"\xff\x00", media_type="text/plain"))
    task = Task.QUESTION_ANSWERING
    question = {"question": "who?", "context": "a goat"}
    [result] = await run(await house.model(task), task, item(task, question))
    if answer == []:
        assert isinstance(result, Made)  # no answer was found
    else:
        assert isinstance(result, GoatherdError)


def generating(prompt: str, generation: Generation = GREEDY, prefix: str = "", **more: Any) -> ChatRequest:
    return ChatRequest((), generation, prefix, prompt=prompt, **more)


@pytest.mark.parametrize("stream", [True, False])
async def test_text_is_put_together_from_parts_that_are_cut_anywhere(house: House, stream: bool) -> None:
    chat = await house.chat(Task.TEXT_GENERATION, "tgi", stream=stream)
    got = await reply(chat, generating("Größe 🐐 山羊 äöü"))
    assert got.text == "You said: Größe 🐐 山羊 äöü"
    assert len(got.chunks) == (6 if stream else 1)
    assert got.finish is not None
    assert (got.finish.reason, got.finish.usage.prompt_tokens) == ("stop", 9)
    assert got.finish.usage.completion_tokens == 6


async def test_wishes_reach_the_container_by_its_names(house: House) -> None:
    chat = await house.chat(Task.TEXT_GENERATION, "tgi")
    wish = Generation(max_tokens=5, temperature=0.0, top_p=1.0, top_k=0, stop=["zzz"], seed=3)
    await reply(chat, generating("a", wish, prompt_tokens=100, passed_on={"frequency_penalty": 0.5}))
    assert house.server.asked[-1].json["parameters"] == {
        "max_new_tokens": 5,
        "do_sample": False,
        "stop": ["zzz"],
        "seed": 3,
        "truncate": 100,
        "return_full_text": False,
        "details": True,
        "frequency_penalty": 0.5,
    }


@pytest.mark.parametrize("stream", [True, False])
async def test_stop_text_is_not_shown(house: House, stream: bool) -> None:
    chat = await house.chat(Task.TEXT_GENERATION, "tgi", stream=stream)
    got = await reply(chat, generating("one two three four", Generation(stop=["two th"])))
    assert got.text == "You said: one "
    assert got.finish is not None
    assert (got.finish.reason, got.finish.at_stop_text) == ("stop", True)


async def test_length_and_tokens_are_told(house: House) -> None:
    chat = await house.chat(Task.TEXT_GENERATION, "tgi")
    tokens, finish = [], None
    async for one in chat.stream(generating("a b c d", Generation(max_tokens=3), details=True)):
        if isinstance(one, Finish):
            finish = one
        else:
            tokens += one.tokens or []
    assert [(token.id, token.text) for token in tokens if not token.special] == [
        (101, "You"),
        (102, " said:"),
        (103, " a"),
    ]
    assert finish is not None
    assert finish.reason == "length"


async def test_text_goes_on_from_a_prefix(house: House) -> None:
    chat = await house.chat(Task.TEXT_GENERATION, "tgi")
    await reply(chat, generating("Once upon", prefix=" a time"))
    assert house.server.asked[-1].json["inputs"] == "Once upon a time"


async def test_conversation_goes_to_a_container_of_openais_kind(house: House) -> None:
    chat = await house.chat(Task.CONVERSATIONAL, "chat", format="openai")
    turns = [ChatTurn(role="system", content="be kind"), ChatTurn(role="user", content="hällo you")]
    got = await reply(chat, ChatRequest(turns, GREEDY))
    assert got.text == "You said: hällo you"
    assert len(got.chunks) == 4
    assert [one["role"] for one in house.server.asked[-1].json["messages"]] == ["system", "user"]
    whole = await house.chat(Task.CONVERSATIONAL, "chat", format="openai", stream=False)
    assert (await reply(whole, asking("hello"))).text == "You said: hello"


@pytest.mark.parametrize("fault", ["ModelStreamError", "InternalStreamFailure", "cut"])
async def test_stream_that_breaks_is_unavailable_after_what_came(house: House, fault: str) -> None:
    house.server.fault = fault
    chat = await house.chat(Task.TEXT_GENERATION, "tgi")
    came: list[str] = []

    async def read() -> None:
        async for one in chat.stream(generating("[[words=50]]")):
            assert isinstance(one, Chunk), "a broken reply has no finish"
            came.append(one.text)

    with pytest.raises(Unavailable):
        await read()
    assert "".join(came).startswith("word1")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("kind", "expected"),
    [("validation", Invalid), ("overloaded", TooManyRequests), ("generation", Unavailable)],
)
async def test_error_that_the_container_tells_is_its_own(
    house: House, stream: bool, kind: str, expected: type[GoatherdError]
) -> None:
    event = {"error": "told you so", "error_type": kind}
    house.answers(framed(f"data:{json.dumps(event)}\n\n".encode()) if stream else [event])
    chat = await house.chat(Task.TEXT_GENERATION, "it", stream=stream)
    with pytest.raises(expected, match="told you so"):
        await reply(chat, generating("a"))


async def test_closed_stream_is_closed_at_the_endpoint(house: House) -> None:
    chat = await house.chat(Task.TEXT_GENERATION, "tgi")
    asked = generating("[[words=500 delay_ms=5]]", Generation())
    async with aclosing(chat.stream(asked)) as stream:  # type: ignore[type-var]
        assert isinstance(await anext(stream), Chunk)
    async with asyncio.timeout(10):
        await house.server.left.wait()


async def test_endpoint_that_does_not_answer_is_given_up(house: House) -> None:
    chat = await house.chat(Task.TEXT_GENERATION, "tgi", timeout_s=0.3)
    with pytest.raises(Unavailable):
        await reply(chat, generating("[[words=2 delay_ms=3000]]"))


async def test_worker_without_credentials_is_told_so(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    task = Task.TEXT_CLASSIFICATION
    [result] = await run(await house.model(task), task, item(task, "hi"))
    assert isinstance(result, Unavailable)
    assert result.code == "model-unavailable"


@pytest.mark.parametrize(
    ("task", "options", "pointer"),
    [
        (Task.CONVERSATIONAL, {}, "/options/format"),
        (Task.TEXT_CLASSIFICATION, {"format": "openai"}, "/options/format"),
        (Task.TEXT_CLASSIFICATION, {"async": {"input_s3": "bucket"}}, "/options/async/input_s3"),
        (
            Task.TEXT_CLASSIFICATION,
            {"async": {"input_s3": "s3://bucket/in"}, "target_variant": "x"},
            "/options/async",
        ),
    ],
)
def test_check_knows_what_goes_together(task: Task, options: dict[str, Any], pointer: str) -> None:
    with pytest.raises(Invalid) as caught:
        SageMakerProvider().check(
            "m", ModelSpec(provider="sagemaker", source="e", task=task, options=options)
        )
    assert caught.value.pointer == pointer


def test_check_knows_tasks() -> None:
    with pytest.raises(WrongTask):
        SageMakerProvider().check("m", ModelSpec(provider="sagemaker", source="e", task=Task.TENSORS))
