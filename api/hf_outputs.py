"""Results of tasks as Hugging Face's clients read them.

Source of the shapes: huggingface_hub 2.4, how each method of `InferenceClient` parses its answer.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any

import orjson
from starlette.responses import Response

from api.hf_inputs import Asked
from api.media import mime_of
from api.outcomes import all_done
from api.vectors import base64_text, numbers
from goatherd.contracts.inference import Finish, Token
from goatherd.contracts.inference_tasks import Media, Task, Vectors
from goatherd.contracts.inference_work import Outcome, WorkItem
from goatherd.contracts.model import Json

_IN_A_LIST = (Task.SUMMARIZATION, Task.TRANSLATION, Task.TEXT2TEXT_GENERATION, Task.TEXT_CLASSIFICATION)
"""Whose one result stands in a list, as that of a list of one input."""
_MEDIA = {Task.TEXT_TO_IMAGE: "image", Task.TEXT_TO_SPEECH: "audio"}
"""Whose one result is the file itself; of a list of inputs, objects with it in base64 under this name."""


def answer(task: Task, asked: Asked, outcomes: Sequence[Outcome]) -> Response:
    """The answer to a call all of whose items have an output."""
    if task in _MEDIA:
        files = [Media.model_validate(one.output) for one in outcomes]
        if not asked.many:
            file, format = files[0], asked.parameters.get("format")
            return Response(file.data, media_type=mime_of(file, format))
        return _json([_file(task, one) for one in files])
    results = [_result(task, asked, *one) for one in zip(asked.items, outcomes, strict=True)]
    return _json(results if asked.many or task in _IN_A_LIST else results[0])


def answer_each(task: Task, asked: Asked, outcomes: Sequence[Outcome]) -> Response:
    """The same of items some of which may have none: in a list the error stands in the output's place.

    Raises the only item's error.
    """
    if not asked.many or all(one.problem is None for one in outcomes):
        return answer(task, asked, all_done(outcomes))
    results = []
    for item, outcome in zip(asked.items, outcomes, strict=True):
        if outcome.problem is not None:
            results.append({"error": outcome.problem.message, "code": outcome.problem.code})
        elif task in _MEDIA:
            results.append(_file(task, Media.model_validate(outcome.output)))
        else:
            results.append(_result(task, asked, item, outcome))
    return _json(results)


def _file(task: Task, file: Media) -> Json:
    return {_MEDIA[task]: base64.b64encode(file.data).decode(), "mime_type": mime_of(file)}


def _result(task: Task, asked: Asked, item: WorkItem, outcome: Outcome) -> Any:
    special = _SPECIAL.get(task)
    return _lean(outcome.output) if special is None else special(asked, item, outcome)


def _answers(asked: Asked, _: WorkItem, outcome: Outcome) -> Any:
    """The only one by itself, as it is by default."""
    answers = outcome.output
    return answers[0] if asked.parameters.get("top_k", 1) == 1 and len(answers) == 1 else answers


def _vectors(asked: Asked, _: WorkItem, outcome: Outcome) -> Any:
    vectors = Vectors.model_validate(outcome.output)
    return base64_text(vectors) if asked.base64 else numbers(vectors)


def _generated(asked: Asked, item: WorkItem, outcome: Outcome) -> Any:
    text = outcome.output["generated_text"]
    if asked.parameters.get("return_full_text"):
        text = f"{item.inputs}{text}"
    if not asked.parameters.get("details"):
        return {"generated_text": text}
    tokens = [token_json(token) for token in outcome.tokens or ()]
    details = {**end_json(outcome.finish, asked.parameters.get("seed")), "prefill": [], "tokens": tokens}
    return {"generated_text": text, "details": details}


_SPECIAL: dict[Task, Callable[[Asked, WorkItem, Outcome], Any]] = {
    Task.FEATURE_EXTRACTION: _vectors,
    Task.QUESTION_ANSWERING: _answers,
    Task.TEXT_GENERATION: _generated,
}


def token_json(token: Token) -> Json:
    return {"id": token.id, "text": token.text, "logprob": token.logprob, "special": token.special}


def end_json(finish: Finish | None, seed: int | None) -> Json:
    """Why and after how much a text ended. Source: text-generation-inference."""
    if finish is None or finish.reason == "length":
        reason = "length"
    else:
        reason = "stop_sequence" if finish.at_stop_text else "eos_token"
    made = finish.usage.completion_tokens if finish is not None else 0
    return {"finish_reason": reason, "generated_tokens": made, "seed": seed}


def _lean(value: Any) -> Any:
    """Without fields that have no value, which the other side leaves out."""
    if isinstance(value, dict):
        return {name: _lean(one) for name, one in value.items() if one is not None}
    if isinstance(value, list):
        return [_lean(one) for one in value]
    return value


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")
