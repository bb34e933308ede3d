"""The activity `infer`: orders of every task in, outcomes out, by scripted models."""

from __future__ import annotations

import asyncio
import base64
import io
import time
import wave
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.backends.machine import Machine
from activities.backends.memory_models import MemoryPieceFeed
from activities.backends.model_host import ModelHost
from activities.backends.scripted_outputs import OUTPUTS, Wish
from activities.inference import InferenceActivities
from activities.ports import Resync
from goatherd.contracts.inference import Generation, ModelSpec
from goatherd.contracts.inference_tasks import MODEL_TASKS, SHAPES, Task, TextToImageParameters, Vectors
from goatherd.contracts.inference_work import (
    InferAnswer,
    InferOrder,
    LoadModel,
    Outcome,
    Piece,
    UnloadModel,
    WorkItem,
)
from goatherd.errors import Unavailable
from goatherd.settings import Settings
from tests.temporal import eventually


def _wav(seconds: float) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8_000)
        sound.writeframes(bytes(int(16_000 * seconds)))
    return file.getvalue()


def _media(data: bytes) -> dict[str, str]:
    return {"data": base64.urlsafe_b64encode(data).decode()}


PNG = _media(OUTPUTS[Task.TEXT_TO_IMAGE]("a", TextToImageParameters(width=20, height=10), Wish(1, None)).data)
WAV = _media(_wav(2.0))
TALK = {"messages": [{"role": "user", "content": "hello there"}]}
INPUTS: dict[Task, Any] = {
    Task.FILL_MASK: "The [MASK] is here.",
    Task.QUESTION_ANSWERING: {"question": "Where is the goat?", "context": "The goat is in Bern."},
    Task.TABLE_QUESTION_ANSWERING: {
        "query": "age of Ann",
        "table": {"name": ["Bo", "Ann"], "age": ["3", "4"]},
    },
    Task.SENTENCE_SIMILARITY: {"source_sentence": "a goat", "sentences": ["a goat", "the moon"]},
    Task.CONVERSATIONAL: TALK,
    Task.IMAGE_CLASSIFICATION: PNG,
    Task.OBJECT_DETECTION: PNG,
    Task.IMAGE_SEGMENTATION: PNG,
    Task.AUTOMATIC_SPEECH_RECOGNITION: WAV,
    Task.AUDIO_CLASSIFICATION: WAV,
    Task.TENSORS: {"tensors": {"x": {"dtype": "uint8", "shape": [2], "data": "AAE="}}},
}
PARAMETERS: dict[Task, dict[str, Any]] = {
    Task.ZERO_SHOT_CLASSIFICATION: {"candidate_labels": ["goat", "moon"]}
}


def order(task: Task, *inputs: Any, spec: dict[str, Any] | None = None, **fields: Any) -> InferOrder:
    parameters = fields.pop("parameters", PARAMETERS.get(task, {}))
    return InferOrder(
        model=f"for-{task}",
        task=task,
        items=[WorkItem(inputs=one, parameters=parameters) for one in inputs],
        spec=ModelSpec(provider="scripted", **{"task": task, **(spec or {})}),
        **fields,
    )


@pytest.fixture
def pieces() -> MemoryPieceFeed:
    return MemoryPieceFeed()


@pytest.fixture
async def infer(pieces: MemoryPieceFeed, tmp_path: Path) -> AsyncIterator[InferenceActivities]:
    host = ModelHost(Settings(cache=tmp_path), machine=Machine("cpu", 1 << 30))
    yield InferenceActivities(host, pieces=pieces, worker="me")
    await host.close()


async def run(infer: InferenceActivities, asked: InferOrder) -> InferAnswer:
    answer: InferAnswer = await ActivityEnvironment().run(infer.infer, asked)
    return answer


async def one(infer: InferenceActivities, asked: InferOrder) -> Outcome:
    (outcome,) = (await run(infer, asked)).outcomes
    return outcome


@pytest.mark.parametrize("task", list(MODEL_TASKS))
async def test_every_task_gives_its_output(infer: InferenceActivities, task: Task) -> None:
    outcome = await one(infer, order(task, INPUTS.get(task, "Ann sees a good goat.")))
    assert outcome.problem is None
    SHAPES[task].read_output.validate_json(outcome.model_dump_json(include={"output"})[10:-1])


async def test_outcomes_are_in_the_items_order(infer: InferenceActivities) -> None:
    answer = await run(infer, order(Task.TRANSLATION, *(f"text {n}" for n in range(100))))
    assert [outcome.output for outcome in answer.outcomes] == [
        {"translation_text": f"TEXT {n}"} for n in range(100)
    ]
    assert answer.batch == 64
    assert answer.worker == "me"


async def test_item_that_is_not_of_the_task_has_a_problem_and_a_pointer(infer: InferenceActivities) -> None:
    good = INPUTS[Task.QUESTION_ANSWERING]
    answer = await run(infer, order(Task.QUESTION_ANSWERING, good, {"question": "Where?"}, 5))
    first, second, third = answer.outcomes
    assert first.problem is None
    assert second.problem is not None
    assert (second.problem.code, second.problem.pointer) == ("invalid", "/inputs/context")
    assert third.problem is not None
    assert third.problem.pointer == "/inputs"


async def test_unknown_parameter_is_pointed_at(infer: InferenceActivities) -> None:
    outcome = await one(infer, order(Task.TEXT_CLASSIFICATION, "x", parameters={"top-k": 1}))
    assert outcome.problem is not None
    assert outcome.problem.pointer == "/parameters/top-k"


async def test_bytes_that_are_no_base64_are_invalid(infer: InferenceActivities) -> None:
    outcome = await one(infer, order(Task.IMAGE_CLASSIFICATION, {"data": "***"}))
    assert outcome.problem is not None
    assert outcome.problem.pointer == "/inputs/data"


async def test_media_that_can_not_be_read_is_a_problem(infer: InferenceActivities) -> None:
    outcome = await one(infer, order(Task.IMAGE_CLASSIFICATION, _media(b"no image")))
    assert outcome.problem is not None
    assert outcome.problem.code == "unreadable-media"


async def test_specs_parameters_are_defaults(infer: InferenceActivities) -> None:
    spec = {"parameters": {"top_k": 1}}
    outcome = await one(infer, order(Task.TEXT_CLASSIFICATION, "good", spec=spec))
    assert len(outcome.output) == 1
    outcome = await one(infer, order(Task.TEXT_CLASSIFICATION, "good", spec=spec, parameters={"top_k": 2}))
    assert len(outcome.output) == 2


async def test_bad_item_fails_alone(infer: InferenceActivities) -> None:
    asked = order(Task.TRANSLATION, "a", "[[fail=batch]]", "[[fail=too-long]]", "[[fail=unavailable]]", "b")
    outcomes = (await run(infer, asked)).outcomes
    codes = [one.problem.code if one.problem else "ok" for one in outcomes]
    assert codes == ["ok", "error", "too-long", "unavailable", "ok"]
    assert outcomes[3].problem is not None
    assert outcomes[3].problem.retry_after_s


async def test_vectors_come_whole(infer: InferenceActivities) -> None:
    outcome = await one(infer, order(Task.FEATURE_EXTRACTION, "a goat", spec={"options": {"dimensions": 8}}))
    vectors = Vectors.model_validate_json(outcome.model_dump_json(include={"output"})[10:-1])
    assert vectors.shape == [8]
    assert len(vectors.data) == 32
    assert outcome.usage is not None
    assert outcome.usage.input_tokens == 2


# -- what concerns the whole order


async def test_wrong_task_fails_the_order(infer: InferenceActivities) -> None:
    with pytest.raises(ApplicationError, match="is for text-classification, not for translation") as raised:
        await run(infer, order(Task.TRANSLATION, "x", spec={"task": Task.TEXT_CLASSIFICATION}))
    assert raised.value.type == "wrong-task"
    assert raised.value.non_retryable


async def test_model_that_can_not_be_loaded_fails_the_order(infer: InferenceActivities) -> None:
    options = {"fail_load": "no weights"}
    with pytest.raises(ApplicationError, match="no weights") as raised:
        await run(infer, order(Task.TRANSLATION, "x", spec={"options": options}))
    assert (raised.value.type, raised.value.non_retryable) == ("model-broken", True)
    options["fail_code"] = "model-unavailable"
    with pytest.raises(ApplicationError, match="no weights") as raised:
        await run(infer, order(Task.TRANSLATION, "x", spec={"options": options}))
    assert (raised.value.type, raised.value.non_retryable) == ("model-unavailable", False)


async def test_deadline_that_passed_is_a_problem_of_each_item(infer: InferenceActivities) -> None:
    for task in (Task.TRANSLATION, Task.TEXT_GENERATION):
        answer = await run(infer, order(task, "x", "y", deadline=time.time() - 1))
        assert [one.problem and one.problem.code for one in answer.outcomes] == ["deadline-exceeded"] * 2


async def test_slow_load_is_not_waited_for_longer_than_the_deadline(infer: InferenceActivities) -> None:
    asked = order(Task.TRANSLATION, "x", deadline=time.time() + 0.1, spec={"options": {"load_ms": 500}})
    outcome = await one(infer, asked)
    assert outcome.problem is not None
    assert "not loaded in time" in outcome.problem.message


# -- cancelled


async def test_cancelled_call_frees_the_model(infer: InferenceActivities) -> None:
    environment = ActivityEnvironment()
    slow = {"options": {"item_ms": 60_000}}
    asked = asyncio.create_task(environment.run(infer.infer, order(Task.TRANSLATION, "x", spec=slow)))
    beat = asyncio.Event()
    environment.on_heartbeat = lambda *_: beat.set()
    await beat.wait()
    environment.cancel(activity.ActivityCancellationDetails(cancel_requested=True))
    with pytest.raises(asyncio.CancelledError):
        await asked
    standing = await ActivityEnvironment().run(infer.unload_model, UnloadModel(model="for-translation"))
    assert standing.state == "unloaded"


async def test_worker_that_shuts_down_hands_over(infer: InferenceActivities) -> None:
    environment = ActivityEnvironment()
    slow = {"options": {"item_ms": 60_000}}
    asked = asyncio.create_task(environment.run(infer.infer, order(Task.TRANSLATION, "x", spec=slow)))
    beat = asyncio.Event()
    environment.on_heartbeat = lambda *_: beat.set()
    await beat.wait()
    environment.cancel(activity.ActivityCancellationDetails(worker_shutdown=True))
    with pytest.raises(ApplicationError) as raised:
        await asked
    assert raised.value.type == "worker-shutdown"
    assert not raised.value.non_retryable


# -- generated text


async def test_text_comes_in_pieces_and_whole(infer: InferenceActivities, pieces: MemoryPieceFeed) -> None:
    got: list[Piece] = []
    async with pieces.watch() as feed:
        asked = asyncio.create_task(
            one(infer, order(Task.TEXT_GENERATION, "[[words=8 delay_ms=15]]", stream="s1"))
        )
        text = "word1 word2 word3 word4 word5 word6 word7 word8"
        async for piece in feed:
            assert not isinstance(piece, Resync)
            got.append(piece)
            if sum(len(one.text) for one in got) == len(text):
                break
        outcome = await asked
    assert "".join(one.text for one in got) == text
    assert [one.n for one in got] == list(range(len(got)))
    assert [one.offset for one in got] == [len("".join(p.text for p in got[:n])) for n in range(len(got))]
    assert got[0].text == "word1"
    assert 2 < len(got) < 8
    assert outcome.output == {"generated_text": text}
    assert outcome.finish is not None
    assert outcome.finish.reason == "stop"
    assert outcome.tokens is None


async def test_details_are_the_tokens(infer: InferenceActivities) -> None:
    outcome = await one(infer, order(Task.TEXT_GENERATION, "[[words=3]]", parameters={"details": True}))
    assert outcome.tokens is not None
    assert [token.text for token in outcome.tokens] == ["word1", " word2", " word3"]
    assert outcome.usage is not None
    assert outcome.usage.output_tokens == 3


@pytest.mark.parametrize("where", ["the call", "the model"])
async def test_the_prompt_is_left_to_who_answers_the_caller(infer: InferenceActivities, where: str) -> None:
    full: dict[str, Any] = {"parameters": {"return_full_text": True}}
    fields = full if where == "the call" else {"spec": full}
    outcome = await one(infer, order(Task.TEXT_GENERATION, "hi", **fields))
    assert outcome.output == {"generated_text": "You said: hi"}


async def test_only_so_many_texts_are_made_at_once(tmp_path: Path) -> None:
    """So that other calls of this worker are taken meanwhile."""
    host = ModelHost(Settings(cache=tmp_path), machine=Machine("cpu", 1 << 30))
    infer = InferenceActivities(host, texts_at_once=1)
    long = {"messages": [{"role": "user", "content": "[[words=9 delay_ms=60000]]"}]}
    talk = order(Task.CONVERSATIONAL, long)
    first = asyncio.create_task(run(infer, talk))

    async def is_made() -> bool:
        return host.states() == {talk.model: "ready"}

    await eventually(is_made)
    with pytest.raises(ApplicationError) as refused:
        await run(infer, order(Task.CONVERSATIONAL, TALK))
    assert refused.value.type == "too-many-requests"
    assert (await one(infer, order(Task.TRANSLATION, "hello"))).problem is None
    first.cancel()
    await asyncio.wait({first})
    assert (await one(infer, order(Task.CONVERSATIONAL, TALK))).problem is None
    await host.close()


async def test_length_and_stop_are_the_callers_above_the_models(infer: InferenceActivities) -> None:
    spec = {"generation": Generation(max_tokens=2)}
    outcome = await one(infer, order(Task.CONVERSATIONAL, TALK, spec=spec))
    assert outcome.output == {"generated_text": "You said:"}
    assert outcome.finish is not None
    assert outcome.finish.reason == "length"
    outcome = await one(infer, order(Task.CONVERSATIONAL, TALK, spec=spec, parameters={"max_tokens": 3}))
    assert outcome.output == {"generated_text": "You said: hello"}
    outcome = await one(infer, order(Task.TEXT_GENERATION, "hi", parameters={"stop_sequences": ["said"]}))
    assert outcome.output == {"generated_text": "You "}


async def test_pieces_that_can_not_be_shown_do_not_fail_the_text(tmp_path: Path) -> None:
    class Broken(MemoryPieceFeed):
        async def publish(self, pieces: Any) -> None:
            raise Unavailable("the store is away")

    host = ModelHost(Settings(cache=tmp_path), machine=Machine("cpu", 1 << 30))
    infer = InferenceActivities(host, pieces=Broken())
    outcome = await one(infer, order(Task.TEXT_GENERATION, "hi", stream="s1"))
    assert outcome.output == {"generated_text": "You said: hi"}
    await host.close()


async def test_script_that_fails_is_the_items_problem(infer: InferenceActivities) -> None:
    answer = await run(infer, order(Task.TEXT_GENERATION, "hi", "[[fail=invalid]]"))
    assert [one.problem and one.problem.code for one in answer.outcomes] == [None, "invalid"]


# -- loading


async def test_model_is_loaded_and_unloaded(infer: InferenceActivities) -> None:
    spec = ModelSpec(provider="scripted", task=Task.TRANSLATION, memory_mb=5)
    load = LoadModel(model="mine", spec=spec)
    assert (await ActivityEnvironment().run(infer.load_model, load)).state == "ready"
    standing = await ActivityEnvironment().run(infer.unload_model, UnloadModel(model="mine"))
    assert standing.state == "unloaded"


async def test_model_too_large_is_said(infer: InferenceActivities) -> None:
    spec = ModelSpec(provider="scripted", task=Task.TRANSLATION, memory_mb=5_000)
    with pytest.raises(ApplicationError) as raised:
        await ActivityEnvironment().run(infer.load_model, LoadModel(model="mine", spec=spec))
    assert raised.value.type == "model-too-large"
