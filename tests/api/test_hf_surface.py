"""Hugging Face's own client, unmodified, over a real server."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import pytest
import structlog
from huggingface_hub import AsyncInferenceClient, InferenceClient, close_session
from huggingface_hub.errors import HfHubHTTPError, OverloadedError, UnknownError, ValidationError

from goatherd.contracts.inference_tasks import Media, Task
from goatherd.contracts.inference_work import Problem
from goatherd.errors import (
    Conflict,
    DeadlineExceeded,
    GoatherdError,
    TooManyRequests,
    Unavailable,
    UnreadableMedia,
)
from tests.api.fake_inference import png, wav
from tests.api.inference_house import InferenceHouse, inference_house

MODEL = "some/model-1"

# Of the asynchronous client, which sends files so.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture(scope="module")
async def served() -> AsyncIterator[InferenceHouse]:
    async with inference_house(max_media_bytes=50_000, max_body_bytes=20_000) as house:
        yield house


@pytest.fixture
async def house(served: InferenceHouse) -> AsyncIterator[InferenceHouse]:
    yield served.anew()
    while _open:
        await _open.pop().close()
    close_session()


_open: list[AsyncInferenceClient] = []


def asking(house: InferenceHouse, address: str) -> AsyncInferenceClient:
    """A client that is closed when the test is over."""
    client = AsyncInferenceClient(model=address, timeout=10)
    _open.append(client)
    return client


@pytest.fixture
async def http(house: InferenceHouse) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=house.url) as client:
        yield client


def client_of(house: InferenceHouse, task: Task) -> AsyncInferenceClient:
    house.inference.add(MODEL, task)
    return asking(house, house.model(MODEL))


def last_item(house: InferenceHouse) -> Any:
    return house.inference.calls[-1].items[-1]


async def post(http: httpx.AsyncClient, task: Task, body: Any, **more: Any) -> httpx.Response:
    return await http.post(f"/models/{task.value}", json=body, **more)


def check_error(answer: httpx.Response, status: int, kind: str) -> str:
    body = answer.json()
    assert (answer.status_code, body.keys()) == (status, {"error", "error_type"}), answer.text
    assert body["error_type"] == kind
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    return str(body["error"])


# -- the client's methods


async def test_fill_mask(house: InferenceHouse) -> None:
    (found,) = await client_of(house, Task.FILL_MASK).fill_mask("A [MASK].", top_k=3, targets=["goat"])
    assert (found.score, found.token, found.token_str, found.sequence) == (0.5, 3, "goat", "A goat.")
    assert last_item(house).parameters == {"top_k": 3, "targets": ["goat"]}


async def test_text_classification(house: InferenceHouse) -> None:
    client = client_of(house, Task.TEXT_CLASSIFICATION)
    first, second = await client.text_classification("I like it", function_to_apply="softmax")
    assert (first.label, first.score, second.label) == ("of 9", 0.75, "other")


async def test_token_classification(house: InferenceHouse) -> None:
    client = client_of(house, Task.TOKEN_CLASSIFICATION)
    (group,) = await client.token_classification("Hans is here")
    assert (group.entity_group, group.word, group.start, group.end) == ("PER", "Hans", 0, 4)
    (single,) = await client.token_classification("Hans", aggregation_strategy="none", stride=2)
    assert (single.entity, single.entity_group) == ("B-PER", None)


async def test_zero_shot_classification(house: InferenceHouse) -> None:
    client = client_of(house, Task.ZERO_SHOT_CLASSIFICATION)
    found = await client.zero_shot_classification("A goat.", ["animal", "car"], multi_label=True)
    assert [(one.label, one.score) for one in found] == [("animal", 1.0), ("car", 0.5)]


async def test_question_answering_gives_one_answer_or_several(house: InferenceHouse) -> None:
    client = client_of(house, Task.QUESTION_ANSWERING)
    one = await client.question_answering(question="Who?", context="Goats climb.")
    assert not isinstance(one, list)
    assert (one.answer, one.start, one.end) == ("Goats", 0, 5)
    several = await client.question_answering(question="Who?", context="Goats climb.", top_k=2)
    assert isinstance(several, list)
    assert [each.answer for each in several] == ["Goats", "Goats"]


async def test_table_question_answering(house: InferenceHouse) -> None:
    client = client_of(house, Task.TABLE_QUESTION_ANSWERING)
    table = {"goat": ["Heidi", "Peter"], "age": ["3", "5"]}
    # The client sends its argument `model` as a parameter, too.
    answer = await client.table_question_answering(table, "Who?", model=house.model(MODEL), sequential=True)
    assert (answer.answer, answer.cells, answer.aggregator) == ("SUM > Heidi", ["Heidi"], "SUM")
    assert last_item(house).inputs == {"query": "Who?", "table": table}
    assert last_item(house).parameters == {"sequential": True}


async def test_sentence_similarity(house: InferenceHouse) -> None:
    client = client_of(house, Task.SENTENCE_SIMILARITY)
    assert await client.sentence_similarity("a", other_sentences=["b", "cc"]) == [1.0, 0.5]


async def test_feature_extraction_takes_its_options_at_the_root(house: InferenceHouse) -> None:
    client = client_of(house, Task.FEATURE_EXTRACTION)
    one = await client.feature_extraction("Goat", normalize=True, truncate=False, prompt_name="query")
    np.testing.assert_array_equal(one, np.float32([4, 2, 4 / 3, 1]))
    expected = {"normalize": True, "truncate": False, "prompt_name": "query"}
    assert last_item(house).parameters == expected
    several = await client.feature_extraction(["Goat", "Goats"], dimensions=2, encoding_format="float")
    np.testing.assert_array_equal(several, np.float32([[4, 2], [5, 2.5]]))


async def test_a_model_serves_what_follows_from_its_task(house: InferenceHouse) -> None:
    house.inference.add(MODEL, Task.SENTENCE_SIMILARITY)
    client = asking(house, house.model(MODEL, "feature-extraction"))
    assert (await client.feature_extraction("Goat")).shape == (4,)


async def test_summarization_and_translation(house: InferenceHouse) -> None:
    summary = await client_of(house, Task.SUMMARIZATION).summarization(
        "Goats climb.", truncation="only_first"
    )
    assert summary.summary_text == "Goats"
    client = asking(house, house.model("translation"))
    translated = await client.translation(
        "Goat", src_lang="en", tgt_lang="fr", generate_parameters={"num_beams": 2}
    )
    assert translated.translation_text == "fr: Goat"
    assert last_item(house).parameters["generate_parameters"] == {"num_beams": 2}


async def test_text_generation_whole(house: InferenceHouse) -> None:
    client = client_of(house, Task.TEXT_GENERATION)
    assert await client.text_generation("What?", max_new_tokens=2) == "Goats eat"
    full = await client.text_generation("What?", return_full_text=True, max_new_tokens=2)
    assert full == "What?Goats eat"
    output = await client.text_generation("What?", details=True, seed=3, max_new_tokens=2)
    assert (output.generated_text, output.details.finish_reason) == ("Goats eat", "length")
    assert (output.details.generated_tokens, output.details.seed, output.details.prefill) == (2, 3, [])
    assert [(one.id, one.text, one.logprob) for one in output.details.tokens] == [
        (10, "Goats", 0.0),
        (11, " eat", -0.5),
    ]
    stopped = await client.text_generation("What?", details=True, stop=["grass"])
    assert stopped.details.finish_reason == "stop_sequence"
    ended = await client.text_generation("What?", details=True)
    assert ended.details.finish_reason == "eos_token"


async def test_a_model_may_put_the_prompt_before_the_text_by_default(house: InferenceHouse) -> None:
    client = client_of(house, Task.TEXT_GENERATION)
    house.inference.add(MODEL, Task.TEXT_GENERATION, parameters={"return_full_text": True})
    assert await client.text_generation("What?", max_new_tokens=2) == "What?Goats eat"
    assert await client.text_generation("What?", max_new_tokens=2, return_full_text=False) == "Goats eat"


async def test_text_generation_streamed(house: InferenceHouse) -> None:
    client = client_of(house, Task.TEXT_GENERATION)
    assert [text async for text in await client.text_generation("What?", stream=True)] == [
        *("Goats", " eat", " grass", "."),
        "",
    ]
    events = [one async for one in await client.text_generation("What?", stream=True, details=True, seed=1)]
    assert [(one.index, one.token.id, one.token.text, one.generated_text) for one in events[:2]] == [
        (1, 10, "Goats", None),
        (2, 11, " eat", None),
    ]
    assert events[-1].generated_text == "Goats eat grass."
    assert (events[-1].details.finish_reason, events[-1].details.input_length) == ("eos_token", 7)
    assert events[-1].token.special


async def test_what_pieces_missed_comes_at_the_end(house: InferenceHouse) -> None:
    house.inference.drop = 2
    client = client_of(house, Task.TEXT_GENERATION)
    texts = [text async for text in await client.text_generation("What?", stream=True)]
    assert texts == ["Goats", " eat", " grass."]


async def test_a_synchronous_client(house: InferenceHouse) -> None:
    house.inference.add(MODEL, Task.CONVERSATIONAL)

    def use() -> tuple[str, list[str], str]:
        with InferenceClient(model=house.model(MODEL)) as client:
            texts = list(client.text_generation("What?", stream=True))
            reply = client.chat_completion([{"role": "user", "content": "What?"}])
            return client.text_generation("What?"), texts, str(reply.choices[0].message.content)

    text, texts, reply = await asyncio.to_thread(use)
    assert text == "".join(texts) == reply == "Goats eat grass."


async def test_chat_at_the_models_address(house: InferenceHouse) -> None:
    client = client_of(house, Task.CONVERSATIONAL)
    messages: list[Any] = [{"role": "user", "content": [{"type": "text", "text": "What?"}]}]
    reply = await client.chat_completion(messages, max_tokens=2, seed=3, logprobs=True, stop=["zzz"])
    assert reply.choices[0].message.content == "Goats eat"
    assert (reply.model, reply.choices[0].finish_reason) == (MODEL, "stop")
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (7, 2)
    assert [one.token for one in reply.choices[0].logprobs.content] == ["Goats", " eat"]
    assert last_item(house).inputs == {"messages": [{"role": "user", "content": "What?"}]}


async def test_chat_streamed_and_at_the_root(house: InferenceHouse) -> None:
    house.inference.add(MODEL, Task.CONVERSATIONAL)
    for url, name in ((house.model(MODEL), None), (f"{house.url}/v1", MODEL), (house.url, MODEL)):
        client = asking(house, url)
        stream = await client.chat.completions.create(
            [{"role": "user", "content": "What?"}],
            model=name,
            stream=True,
            stream_options={"include_usage": True},  # type: ignore[arg-type]
        )
        chunks = [chunk async for chunk in stream]
        assert (
            "".join(one.choices[0].delta.content or "" for one in chunks if one.choices) == "Goats eat grass."
        )
        assert chunks[-2].choices[0].finish_reason == "stop"
        assert chunks[-1].usage.total_tokens == 11


async def test_image_tasks_take_the_file_itself(house: InferenceHouse) -> None:
    image = png()
    client = client_of(house, Task.IMAGE_CLASSIFICATION)
    first, _ = await client.image_classification(image)
    assert first.label == f"of {len(image)}"
    assert last_item(house).inputs == Media(data=image)


async def test_image_tasks_with_parameters_take_base64(house: InferenceHouse) -> None:
    image = png()
    (first,) = await client_of(house, Task.IMAGE_CLASSIFICATION).image_classification(image, top_k=1)
    assert first.label == f"of {len(image)}"
    (box,) = await asking(house, house.model("object-detection")).object_detection(image, threshold=0.9)
    assert (box.label, box.score, box.box.xmax) == ("goat", 0.9, 3)
    assert last_item(house).inputs.data == image


async def test_image_segmentation(house: InferenceHouse) -> None:
    (segment,) = await client_of(house, Task.IMAGE_SEGMENTATION).image_segmentation(png())
    mask: Any = segment.mask
    assert (segment.label, mask.size, mask.mode) == ("goat", (2, 2), "L")


async def test_text_to_image(house: InferenceHouse) -> None:
    client = client_of(house, Task.TEXT_TO_IMAGE)
    image = await client.text_to_image("A goat.", width=8, height=8, seed=7, guidance_scale=2.5)
    assert (image.size, image.getpixel((0, 0))) == ((8, 8), 7)


async def test_sounds(house: InferenceHouse) -> None:
    client = client_of(house, Task.AUTOMATIC_SPEECH_RECOGNITION)
    heard = await client.automatic_speech_recognition(wav())
    assert (heard.text, heard.chunks) == ("Goats climb. They eat.", None)
    stamped = await client.automatic_speech_recognition(wav(), extra_body={"return_timestamps": True})
    assert [(one.text, one.timestamp) for one in stamped.chunks] == [
        ("Goats climb.", [0.0, 1.0]),
        (" They eat.", [1.2, None]),
    ]
    client = asking(house, house.model("audio-classification"))
    assert (await client.audio_classification(wav()))[0].score == 0.75


async def test_text_to_speech_takes_generation_flat(house: InferenceHouse) -> None:
    client = client_of(house, Task.TEXT_TO_SPEECH)
    said = await client.text_to_speech("Goats", do_sample=True, extra_body={"format": "wav", "speed": 1.5})
    assert said == wav(5)
    assert last_item(house).parameters == {
        "format": "wav",
        "speed": 1.5,
        "generation_parameters": {"do_sample": True},
    }


async def test_what_a_model_is(house: InferenceHouse) -> None:
    house.inference.add(MODEL, Task.CONVERSATIONAL)

    def use() -> tuple[Any, bool, bool]:
        client = InferenceClient(model=house.model(MODEL), provider="hf-inference")
        return client.get_endpoint_info(), client.health_check(), client.health_check(house.model("no"))

    info, healthy, other = await asyncio.to_thread(use)
    assert info == {
        "model_id": MODEL,
        "pipeline_tag": "conversational",
        "tasks": ["conversational", "text-generation"],
    }
    assert (healthy, other) == (True, False)


# -- the same without the client


@pytest.mark.parametrize(
    ("task", "inputs", "parameters", "expected"),
    [
        (Task.TEXT_CLASSIFICATION, "abc", {"top_k": 1}, [[{"label": "of 3", "score": 0.75}]]),
        (
            Task.TEXT_CLASSIFICATION,
            ["a", "ab"],
            {"top_k": 1},
            [[{"label": "of 1", "score": 0.75}], [{"label": "of 2", "score": 0.75}]],
        ),
        (Task.SUMMARIZATION, "Goats climb.", {}, [{"summary_text": "Goats"}]),
        (Task.SUMMARIZATION, ["Goats."], {}, [{"summary_text": "Goats"}]),
        (Task.TEXT2TEXT_GENERATION, "a", {}, [{"generated_text": "A"}]),
        (Task.TEXT_GENERATION, "a", {"max_new_tokens": 1}, {"generated_text": "Goats"}),
        (Task.TEXT_GENERATION, ["a", "b"], {"max_new_tokens": 1}, [{"generated_text": "Goats"}] * 2),
        (Task.FEATURE_EXTRACTION, "a", {"pooling": "none", "dimensions": 2}, [[1.0, 0.5], [1.0, 0.5]]),
        (Task.FEATURE_EXTRACTION, ["a", "b"], {"dimensions": 1}, [[1.0], [1.0]]),
        (
            Task.ZERO_SHOT_CLASSIFICATION,
            ["x"],
            {"candidate_labels": "one, two"},
            [[{"label": "one", "score": 1.0}, {"label": ",", "score": 0.5}]],
        ),
        (
            Task.CONVERSATIONAL,
            {"messages": [{"role": "user", "content": "x"}]},
            {},
            {"generated_text": "Goats eat grass."},
        ),
        (
            Task.QUESTION_ANSWERING,
            [{"question": "a", "context": "b"}],
            {},
            [{"answer": "b", "score": 0.5, "start": 0, "end": 5}],
        ),
        (
            Task.TENSORS,
            {"tensors": {"x": {"dtype": "uint8", "shape": [1], "data": "AA=="}}},
            {},
            {"tensors": {"x": {"dtype": "uint8", "shape": [1], "data": "AA=="}}},
        ),
    ],
)
async def test_each_shape(
    house: InferenceHouse, http: httpx.AsyncClient, task: Task, inputs: Any, parameters: Any, expected: Any
) -> None:
    answer = await post(http, task, {"inputs": inputs, "parameters": parameters})
    assert answer.status_code == 200, answer.text
    if task is not Task.ZERO_SHOT_CLASSIFICATION:
        assert answer.json() == expected
    else:
        assert len(answer.json()) == 1


async def test_numbers_of_a_tensor_are_no_list(http: httpx.AsyncClient) -> None:
    tensor = {"dtype": "float32", "shape": [2], "data": [1.0, 2.0]}
    answer = await post(http, Task.TENSORS, {"inputs": {"tensors": {"x": tensor}}})
    assert answer.status_code == 422
    assert "/inputs/tensors/x/data: Has to be base64" in answer.json()["error"]


async def test_several_prompts_for_files_give_base64(http: httpx.AsyncClient) -> None:
    answer = await post(http, Task.TEXT_TO_IMAGE, {"inputs": ["a", "b"], "parameters": {"seed": 3}})
    images = [base64.b64decode(one["image"]) for one in answer.json()]
    assert images == [png(3), png(3)]
    said = await post(http, Task.TEXT_TO_SPEECH, {"inputs": ["a"]})
    assert said.json() == [{"audio": base64.b64encode(wav(1)).decode(), "mime_type": "audio/wav"}]


@pytest.mark.parametrize(
    ("format", "kind"),
    [
        ("wav", "audio/wav"),
        ("mp3", "audio/mpeg"),
        ("opus", "audio/ogg"),
        ("pcm", "audio/pcm"),
        (None, "audio/wav"),
    ],
)
async def test_a_sound_says_what_it_is(http: httpx.AsyncClient, format: str | None, kind: str) -> None:
    answer = await post(http, Task.TEXT_TO_SPEECH, {"inputs": "a", "parameters": {"format": format}})
    assert (answer.headers["content-type"], answer.content) == (kind, wav(1))


async def test_vectors_in_base64(http: httpx.AsyncClient) -> None:
    body = {"inputs": ["ab"], "encoding_format": "base64", "dimensions": 2}
    (text,) = (await post(http, Task.FEATURE_EXTRACTION, body)).json()
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(text), "<f4"), np.float32([2, 1]))


@pytest.mark.parametrize(
    "kind", [None, "image/png", "application/octet-stream", "application/x-www-form-urlencoded"]
)
async def test_a_file_may_be_the_body(
    house: InferenceHouse, http: httpx.AsyncClient, kind: str | None
) -> None:
    headers = {} if kind is None else {"content-type": kind}
    answer = await http.post("/models/image-classification", content=png(), headers=headers)
    assert answer.status_code == 200, answer.text
    assert last_item(house).inputs == Media(
        data=png(), mime=kind if kind in ("image/png", "application/octet-stream") else None
    )


async def test_a_file_may_come_in_a_form(house: InferenceHouse, http: httpx.AsyncClient) -> None:
    answer = await http.post(
        "/models/image-classification",
        files={"file": ("goat.png", png(), "image/png")},
        data={"parameters": '{"top_k": 1}'},
    )
    assert (answer.status_code, len(answer.json())) == (200, 1)
    assert last_item(house).inputs == Media(data=png(), mime="image/png")


async def test_files_may_be_data_uris_and_several(house: InferenceHouse, http: httpx.AsyncClient) -> None:
    data = base64.b64encode(png()).decode()
    inputs = [f"data:image/png;base64,{data}", f"{data[:8]}\n{data[8:]}".rstrip("=")]
    answer = await post(
        http, Task.IMAGE_CLASSIFICATION, {"inputs": inputs, "options": {"wait_for_model": True}}
    )
    assert (answer.status_code, len(answer.json())) == (200, 2)
    assert [one.inputs.mime for one in house.inference.calls[-1].items] == ["image/png", None]


@pytest.mark.parametrize("kind", [None, "application/x-www-form-urlencoded", "text/plain"])
async def test_json_need_not_say_so(http: httpx.AsyncClient, kind: str | None) -> None:
    headers = {} if kind is None else {"content-type": kind}
    answer = await http.post("/models/summarization", content=b'{"inputs": "Goats"}', headers=headers)
    assert answer.json() == [{"summary_text": "Goats"}]


async def test_the_callers_time_goes_along(house: InferenceHouse, http: httpx.AsyncClient) -> None:
    await post(http, Task.SUMMARIZATION, {"inputs": "a"}, headers={"x-request-timeout": "2.5"})
    call = house.inference.calls[-1]
    assert (call.timeout_s, call.caller, call.model) == (2.5, "local", "summarization")
    for bad in ("0", "x", "-1", "nan", "1e9"):
        answer = await post(http, Task.SUMMARIZATION, {"inputs": "a"}, headers={"x-request-timeout": bad})
        assert "x-request-timeout" in check_error(answer, 422, "validation")


# -- errors


@pytest.mark.parametrize(
    ("task", "body", "part"),
    [
        (Task.SUMMARIZATION, {}, "/inputs: Is missing."),
        (Task.SUMMARIZATION, {"inputs": ""}, "/inputs: Must not be empty."),
        (Task.SUMMARIZATION, {"inputs": []}, "1 to 2048"),
        (Task.SUMMARIZATION, {"inputs": ["a", ""]}, "/inputs/1: Must not be empty."),
        (Task.SUMMARIZATION, {"inputs": 5}, "/inputs: Has to be a text."),
        (Task.SUMMARIZATION, {"inputs": None}, "/inputs: Has to be a text."),
        (Task.SUMMARIZATION, {"inputs": "a", "colour": 1}, "/colour: Unknown"),
        (Task.SUMMARIZATION, {"inputs": "a", "parameters": {"top": 1}}, "/parameters/top: Unknown"),
        (Task.SUMMARIZATION, {"inputs": "a", "parameters": []}, "/parameters: Has to be an object."),
        (Task.SUMMARIZATION, {"inputs": "a", "normalize": True}, "/normalize: Not of summarization."),
        (Task.SUMMARIZATION, {"inputs": "a", "stream": True}, "Only generated text"),
        (Task.TEXT_GENERATION, {"inputs": ["a"], "stream": True}, "Only one text"),
        (Task.TEXT_GENERATION, {"inputs": "a", "parameters": {"temperature": 9}}, "/parameters/temperature"),
        (Task.ZERO_SHOT_CLASSIFICATION, {"inputs": "a"}, "/parameters/candidate_labels: Is missing."),
        (Task.QUESTION_ANSWERING, {"inputs": {"question": "a"}}, "/inputs/context: Is missing."),
        (Task.TABLE_QUESTION_ANSWERING, {"inputs": {"query": "a", "table": {}}}, "The table is empty."),
        (Task.IMAGE_CLASSIFICATION, {"inputs": "no base64!"}, "base64"),
        (Task.IMAGE_CLASSIFICATION, {"inputs": {"data": "AAAA", "claim": "x"}}, "base64"),
        (Task.IMAGE_CLASSIFICATION, {"inputs": ""}, "base64"),
        (Task.CONVERSATIONAL, {"inputs": {"messages": []}}, "/inputs/messages"),
    ],
)
async def test_what_is_wrong_is_said(http: httpx.AsyncClient, task: Task, body: Any, part: str) -> None:
    assert part in check_error(await post(http, task, body), 422, "validation")


async def test_what_is_no_json_is_400(http: httpx.AsyncClient) -> None:
    for content in (b"{", b"nonsense", b'{"inputs": NaN}', b"[1]x"):
        headers = {"content-type": "application/json"}
        answer = await http.post("/models/summarization", content=content, headers=headers)
        check_error(answer, 400, "validation")
    check_error(await http.post("/models/summarization", content=b"text"), 400, "validation")


async def test_files_are_for_models_that_take_some(http: httpx.AsyncClient) -> None:
    check_error(await http.post("/models/summarization", files={"file": b"x"}), 415, "validation")
    headers = {"content-type": "image/png"}
    answer = await http.post("/models/summarization", content=png(), headers=headers)
    check_error(answer, 415, "validation")
    answer = await http.post("/models/image-classification", content=b"")
    assert "empty" in check_error(answer, 422, "validation")
    for files, data in (
        ({"file": png()}, {"parameters": "["}),
        ({"file": png()}, {"colour": "red"}),
        ({"parameters": b"{}"}, {}),
    ):
        answer = await http.post("/models/image-classification", files=files, data=data)
        check_error(answer, 422, "validation")
    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = await http.post("/models/image-classification", content=b"nonsense", headers=headers)
    check_error(answer, 400, "validation")


async def test_too_large_a_file_is_413_wherever_it_stands(http: httpx.AsyncClient) -> None:
    path, large = "/models/image-classification", b"\xff" * 50_001
    encoded = base64.b64encode(large).decode()
    for answer in (
        await http.post(path, content=large),
        await http.post(path, json={"inputs": encoded}),
        await http.post(path, files={"file": large}),
        await http.post(path, content=b"\xff" * 200_000),
    ):
        check_error(answer, 413, "validation")
    fits = base64.b64encode(b"\xff" * 50_000).decode()
    assert (await http.post(path, json={"inputs": fits})).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("POST", "/models/none", 404, "not_found"),
        ("POST", "/models/none/pipeline/summarization", 404, "not_found"),
        ("POST", "/models/none/v1/chat/completions", 404, "not_found"),
        ("GET", "/models/none/v1/models", 404, "not_found"),
        ("POST", "/models/summarization/pipeline/nonsense", 422, "validation"),
        ("POST", "/models/summarization/pipeline/fill-mask", 422, "validation"),
        ("PUT", "/models/summarization/pipeline/summarization", 405, "validation"),
        ("POST", "/models/summarization?x=1", 422, "validation"),
    ],
)
async def test_errors_have_the_surfaces_own_shape(
    http: httpx.AsyncClient, method: str, path: str, status: int, kind: str
) -> None:
    body = {"inputs": "a [MASK]"}
    if path.endswith("completions"):
        body = {"model": "dummy", "messages": [{"role": "user", "content": "x"}]}  # type: ignore[dict-item]
    answer = await http.request(method, path, json=body if method == "POST" else None)
    check_error(answer, status, kind)


@pytest.mark.parametrize(
    ("fault", "status", "kind", "headers"),
    [
        (TooManyRequests("Too much."), 429, "overloaded", {"retry-after": "1"}),
        (Unavailable("Down.", retry_after_s=7), 503, "unavailable", {"retry-after": "7"}),
        (DeadlineExceeded("Late."), 504, "timeout", {}),
        (Conflict("Changed."), 409, "validation", {"x-should-retry": "false"}),
        (GoatherdError("secret"), 500, "internal", {}),
        (RuntimeError("secret"), 500, "internal", {}),
    ],
)
async def test_what_concerns_all_is_an_error(
    house: InferenceHouse, http: httpx.AsyncClient, fault: Exception, status: int, kind: str, headers: Any
) -> None:
    house.inference.fault = fault
    for more in ({}, {"stream": True}):
        with structlog.testing.capture_logs():
            answer = await post(http, Task.TEXT_GENERATION, {"inputs": "a", **more})
        message = check_error(answer, status, kind)
        assert "secret" not in message
        assert headers.items() <= dict(answer.headers).items()


@pytest.mark.parametrize(
    ("problem", "status", "kind"),
    [
        (Problem(code="too-long", message="Too long."), 422, "validation"),
        (Problem(code="unreadable-media", message="No image."), 422, "validation"),
        (Problem(code="out-of-memory", message="Full.", retry_after_s=3), 503, "unavailable"),
        (Problem(code="model-unavailable", message="No."), 503, "unavailable"),
        (Problem(code="too-many-requests", message="Full."), 429, "overloaded"),
        (Problem(code="deadline-exceeded", message="Late."), 504, "timeout"),
    ],
)
async def test_an_input_without_a_result_is_an_error(
    house: InferenceHouse, http: httpx.AsyncClient, problem: Problem, status: int, kind: str
) -> None:
    house.inference.problem = problem
    answer = await post(http, Task.SUMMARIZATION, {"inputs": ["a", "b"]})
    assert problem.message in check_error(answer, status, kind)
    if problem.retry_after_s:
        assert answer.headers["retry-after"] == "3"
    streamed = await post(http, Task.TEXT_GENERATION, {"inputs": "a", "stream": True})
    assert "error" in streamed.text


async def test_the_client_shows_what_is_wrong(house: InferenceHouse) -> None:
    client = client_of(house, Task.TEXT_GENERATION)
    with pytest.raises(ValidationError, match="temperature"):
        await client.text_generation("a", temperature=5)
    house.inference.fault = TooManyRequests("Too much.")
    with pytest.raises(OverloadedError, match="Too much"):
        await client.text_generation("a")
    house.inference.fault = UnreadableMedia("No image.")
    client = asking(house, house.model("image-classification"))
    with pytest.raises(HfHubHTTPError, match="No image") as failure:
        await client.image_classification(png())
    assert failure.value.response.status_code == 422


async def test_an_error_in_a_stream_is_its_last_event(house: InferenceHouse) -> None:
    house.inference.late = Unavailable("The worker is gone.")
    client = client_of(house, Task.CONVERSATIONAL)
    texts = aiter(await client.text_generation("a", stream=True))
    assert await anext(texts) == "Goats"
    with pytest.raises(UnknownError, match="The worker is gone"):
        await anext(texts)
    chunks = aiter(await client.chat_completion([{"role": "user", "content": "a"}], stream=True))
    assert (await anext(chunks)).choices[0].delta.role == "assistant"
    assert (await anext(chunks)).choices[0].delta.content == "Goats"
    with pytest.raises(UnknownError, match="The worker is gone"):
        await anext(chunks)


# -- clients that leave


@pytest.mark.parametrize("stream", [False, True])
async def test_who_leaves_ends_the_work(house: InferenceHouse, http: httpx.AsyncClient, stream: bool) -> None:
    house.inference.gate = asyncio.Event()
    async with asyncio.timeout(10):
        asking = asyncio.create_task(post(http, Task.TEXT_GENERATION, {"inputs": "a", "stream": stream}))
        await house.inference.begun.wait()
        asking.cancel()
        await asyncio.wait({asking})
        await house.inference.cancelled.wait()


async def test_a_large_body_is_no_stranger_to_other_routes(http: httpx.AsyncClient) -> None:
    for path in ("/models", "/chat"):
        answer = await http.post(path, content=io.BytesIO(b"x" * 20_001).read())
        assert answer.status_code == 413
