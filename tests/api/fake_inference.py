"""Models in memory behind `Inference`: each output tells of its input, with faults and gates to order."""

from __future__ import annotations

import asyncio
import base64
import io
import struct
import wave
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from goatherd.contracts.inference import Finish, ModelSpec, Provider, Token, Usage
from goatherd.contracts.inference_tasks import MODEL_TASKS, SHAPES, Media, Task, tasks_of
from goatherd.contracts.inference_work import ModelEntry, Outcome, Piece, Problem, TextUsage, WorkItem
from goatherd.contracts.model import Json
from goatherd.errors import ModelNotFound, WrongTask

# Of vectors: more are refused, as models do.
MOST_DIMENSIONS = 4
WORDS = ("Goats", " eat", " grass", ".")


def png(shade: int = 255, size: int = 2) -> bytes:
    """A grey image."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", size, size, 8, 0, 0, 0, 0)
    rows = zlib.compress((b"\0" + bytes([shade]) * size) * size)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def wav(frames: int = 160) -> bytes:
    """Silence, 16 kHz."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(b"\0\0" * frames)
    return out.getvalue()


@dataclass
class Call:
    """One that was asked."""

    model: str
    task: Task
    items: list[WorkItem]
    caller: str
    timeout_s: float | None


@dataclass
class FakeInference:
    """Has a model for each task, named as the task; those of text generation are scripted."""

    provider: Provider = "scripted"
    calls: list[Call] = field(default_factory=list)
    fault: Exception | None = None
    """Raised by each call."""
    late: Exception | None = None
    """Raised by streams after the first piece."""
    problem: Problem | None = None
    """Of the last item of each call."""
    gate: asyncio.Event | None = None
    """Calls wait for it, streams after the first piece."""
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    passed_on: Json | None = None
    passed_in_pieces: list[Json] | None = None
    """Shown in place of the whole."""
    drop: int = 0
    """So many pieces at the end are not shown."""
    named: dict[str, ModelEntry] = field(default_factory=dict)

    def entry(self, model: str) -> ModelEntry:
        for entry in self.entries():
            if entry.name == model:
                return entry
        raise ModelNotFound(f"There is no model {model[:200]!r}.", pointer="/model")

    def entries(self) -> list[ModelEntry]:
        own = [
            ModelEntry(name=task.value, spec=ModelSpec(provider=self.provider, task=task))
            for task in MODEL_TASKS
        ]
        return [*own, *self.named.values()]

    def add(self, name: str, task: Task, **spec: Any) -> None:
        self.named[name] = ModelEntry(name=name, spec=ModelSpec(task=task, **spec))

    async def run(
        self,
        entry: ModelEntry,
        task: Task,
        items: Sequence[WorkItem],
        *,
        caller: str,
        timeout_s: float | None = None,
    ) -> list[Outcome]:
        self._begin(entry, task, items, caller, timeout_s)
        await self._wait()
        outcomes = [self._outcome(task, item) for item in items]
        if self.problem is not None:
            outcomes[-1] = Outcome(problem=self.problem)
        return outcomes

    async def stream(
        self,
        entry: ModelEntry,
        task: Task,
        item: WorkItem,
        *,
        caller: str,
        timeout_s: float | None = None,
    ) -> AsyncIterator[Piece | Outcome]:
        self._begin(entry, task, [item], caller, timeout_s)
        offset = 0
        words = words_of(item)
        for n, word in enumerate(words[: max(len(words) - self.drop, 0)]):
            tokens = [token(n)] if wants_tokens(item) else None
            yield Piece(stream="s", n=n, offset=offset, text=word, tokens=tokens)
            offset += len(word)
            if n == 0:
                await self._wait()
                if self.late is not None:
                    raise self.late
        if self.passed_on and self.drop <= len(words):
            shown = [self.passed_on] if self.passed_in_pieces is None else self.passed_in_pieces
            for n, one in enumerate(shown, len(words)):
                yield Piece(stream="s", n=n, offset=offset, text="", passed_on=one)
        yield Outcome(problem=self.problem) if self.problem else self._outcome(task, item)

    def _begin(
        self,
        entry: ModelEntry,
        task: Task,
        items: Sequence[WorkItem],
        caller: str,
        timeout_s: float | None,
    ) -> None:
        if task not in tasks_of(entry.spec.task):
            raise WrongTask(f"{entry.name!r} is not a model for {task.value}.")
        for item in items:
            shape = SHAPES[task]
            if not isinstance(item.inputs, Media):
                shape.read_inputs.validate_python(item.inputs)
            shape.parameters.model_validate(item.parameters)
        self.calls.append(Call(entry.name, task, list(items), caller, timeout_s))
        if self.fault is not None:
            raise self.fault

    async def _wait(self) -> None:
        self.begun.set()
        if self.gate is None:
            return
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    def _outcome(self, task: Task, item: WorkItem) -> Outcome:
        shape = SHAPES[task]
        if item.parameters.get("dimensions", 0) > MOST_DIMENSIONS:
            reason = f"the model has only {MOST_DIMENSIONS} dimensions"
            return Outcome(problem=Problem(code="invalid", message=reason, pointer="/parameters/dimensions"))
        output = shape.read_output.validate_python(_MADE[task](item))
        outcome = Outcome(output=shape.read_output.dump_python(output, mode="json"))
        if task in (Task.CONVERSATIONAL, Task.TEXT_GENERATION):
            words = words_of(item)
            stop = bool(item.parameters.get("stop"))
            short = len(words) < len(WORDS) and not stop
            usage = Usage(prompt_tokens=7, completion_tokens=len(words))
            finish = Finish(reason="length" if short else "stop", usage=usage, at_stop_text=stop)
            tokens = [token(n) for n in range(len(words))] if wants_tokens(item) else None
            update = {"finish": finish, "tokens": tokens, "passed_on": self.passed_on}
            return outcome.model_copy(update=update)
        if task is Task.FEATURE_EXTRACTION:
            return outcome.model_copy(update={"usage": TextUsage(input_tokens=5)})
        return outcome


@asynccontextmanager
async def given(fake: FakeInference) -> AsyncIterator[FakeInference]:
    yield fake


def token(n: int) -> Token:
    return Token(id=10 + n, text=WORDS[n], logprob=-0.5 * n)


def words_of(item: WorkItem) -> tuple[str, ...]:
    most = item.parameters.get("max_tokens") or item.parameters.get("max_new_tokens") or len(WORDS)
    words = WORDS[:most]
    stops = item.parameters.get("stop") or []
    return next((words[:n] for n, word in enumerate(words) if any(stop in word for stop in stops)), words)


def wants_tokens(item: WorkItem) -> bool:
    return bool(item.parameters.get("details") or item.parameters.get("logprobs"))


def _text(item: WorkItem) -> Json:
    return {"generated_text": "".join(words_of(item))}


def _scores(item: WorkItem) -> list[Json]:
    size = len(item.inputs.data) if isinstance(item.inputs, Media) else len(item.inputs)
    scores = [{"label": f"of {size}", "score": 0.75}, {"label": "other", "score": 0.25}]
    return scores[: item.parameters.get("top_k") or 2]


def _masks(item: WorkItem) -> list[Any]:
    text: str = item.inputs
    found = [
        [{"score": 0.5, "token": 3, "token_str": "goat", "sequence": text.replace("[MASK]", "goat")}]
        for _ in range(text.count("[MASK]"))
    ]
    return found[0] if len(found) == 1 else found


def _answers(item: WorkItem) -> list[Json]:
    one = {"answer": item.inputs["context"][:5], "score": 0.5, "start": 0, "end": 5}
    return [one] * int(item.parameters.get("top_k", 1))


def _entities(item: WorkItem) -> list[Json]:
    one = {"score": 0.5, "word": item.inputs[:4], "start": 0, "end": 4}
    if item.parameters.get("aggregation_strategy") == "none":
        return [{**one, "entity": "B-PER", "index": 1}]
    return [{**one, "entity_group": "PER"}]


def _zero_shot(item: WorkItem) -> list[Json]:
    labels = item.parameters["candidate_labels"]
    return [{"label": label, "score": 1 / (n + 1)} for n, label in enumerate(labels)]


def _vectors(item: WorkItem) -> Json:
    width = item.parameters.get("dimensions", MOST_DIMENSIONS)
    numbers = [len(item.inputs) / (n + 1) for n in range(width)]
    if item.parameters.get("pooling") == "none":
        data = struct.pack(f"<{2 * width}f", *numbers, *numbers)
        return {"shape": [2, width], "data": data, "tokens": 5}
    return {"shape": [width], "data": struct.pack(f"<{width}f", *numbers), "tokens": 5}


def _box(item: WorkItem) -> list[Json]:
    assert item.inputs.data
    score = item.parameters.get("threshold", 0.5)
    return [{"label": "goat", "score": score, "box": {"xmin": 1, "ymin": 2, "xmax": 3, "ymax": 4}}]


def _segments(item: WorkItem) -> list[Json]:
    return [{"label": "goat", "score": 0.5, "mask": base64.b64encode(png()).decode()}]


def _image(item: WorkItem) -> Json:
    shade = item.parameters.get("seed", 0) % 256
    return {"data": png(shade, item.parameters.get("width", 2)), "mime": "image/png"}


def _heard(item: WorkItem) -> Json:
    assert item.inputs.data
    whole: Json = {"text": "Goats climb. They eat.", "duration_s": 2.5, "language": "english"}
    stamps = item.parameters.get("return_timestamps")
    if stamps == "word":
        times = [("Goats", 0.0, 0.5), (" climb.", 0.5, 1.0), (" They", 1.2, 1.5), (" eat.", 1.5, None)]
    elif stamps:
        times = [("Goats climb.", 0.0, 1.0), (" They eat.", 1.2, None)]
    else:
        return whole
    return {**whole, "chunks": [{"text": text, "timestamp": (start, end)} for text, start, end in times]}


def _said(item: WorkItem) -> Json:
    return {"data": wav(len(item.inputs)), "mime": None}


def _table(item: WorkItem) -> Json:
    column = next(iter(item.inputs["table"].values()))
    return {
        "answer": f"SUM > {column[0]}",
        "coordinates": [(0, 0)],
        "cells": [column[0]],
        "aggregator": "SUM",
    }


_MADE: dict[Task, Callable[[WorkItem], Any]] = {
    Task.FILL_MASK: _masks,
    Task.SUMMARIZATION: lambda item: {"summary_text": item.inputs[:5]},
    Task.QUESTION_ANSWERING: _answers,
    Task.TABLE_QUESTION_ANSWERING: _table,
    Task.SENTENCE_SIMILARITY: lambda item: [1 / len(one) for one in item.inputs["sentences"]],
    Task.TEXT_CLASSIFICATION: _scores,
    Task.TEXT_GENERATION: _text,
    Task.TEXT2TEXT_GENERATION: lambda item: {"generated_text": item.inputs.upper()},
    Task.TOKEN_CLASSIFICATION: _entities,
    Task.TRANSLATION: lambda item: {"translation_text": f"{item.parameters.get('tgt_lang')}: {item.inputs}"},
    Task.ZERO_SHOT_CLASSIFICATION: _zero_shot,
    Task.CONVERSATIONAL: _text,
    Task.FEATURE_EXTRACTION: _vectors,
    Task.IMAGE_CLASSIFICATION: _scores,
    Task.OBJECT_DETECTION: _box,
    Task.IMAGE_SEGMENTATION: _segments,
    Task.TEXT_TO_IMAGE: _image,
    Task.AUTOMATIC_SPEECH_RECOGNITION: _heard,
    Task.AUDIO_CLASSIFICATION: _scores,
    Task.TEXT_TO_SPEECH: _said,
    Task.TENSORS: lambda item: item.inputs,
}
