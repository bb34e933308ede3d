"""Text in, text out by models with an encoder and a decoder: summaries, translations, and whatever else they
were trained for. transformers 5 has the models, and no pipelines any more."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any, Literal

from transformers import AutoModelForSeq2SeqLM, StoppingCriteriaList

from activities.backends.hf.encoding import Encoder, Row
from activities.backends.hf.generating import Cancelled, Settings, Watch, configure, processors, settle
from activities.backends.hf.languages import guide
from activities.backends.hf.loading import Loaded, memory_of, pretrained, set_up
from activities.backends.hf.rows import RowsRunner, no_number
from activities.inference_ports import Item, LoadContext, LoadedModel, Made, Result
from goatherd.contracts.inference import Finish, Limits, ModelSpec, Usage
from goatherd.contracts.inference_tasks import (
    GeneratedText,
    GenerateParameters,
    SummaryText,
    Task,
    Text2TextParameters,
    TranslationText,
    tasks_of,
)
from goatherd.contracts.inference_work import TextUsage
from goatherd.errors import Invalid, Unavailable


def load(name: str, spec: ModelSpec, folder: Path, context: LoadContext) -> LoadedModel:
    set_up(context)
    model = pretrained(AutoModelForSeq2SeqLM, spec, folder)
    encoder = Encoder.load(folder, model)
    runners = {task: Writing(task, model, encoder, spec.limits) for task in tasks_of(spec.task)}
    return Loaded(memory_of(model), runners)


@dataclass(frozen=True, slots=True, eq=False)
class _Asked(Row):
    """A row, and how its answer is generated."""

    settings: Settings = field(default_factory=lambda: Settings({}, None, 0))


@dataclass(frozen=True, slots=True)
class _Written:
    tokens: list[int]
    reason: Literal["stop", "length"]
    broken: bool


class Writing(RowsRunner[_Written]):
    """Sequences of equal parameters are generated together, those that are drawn each by its own seed."""

    def __init__(self, task: Task, model: Any, encoder: Encoder, limits: Limits) -> None:
        super().__init__(model, encoder, limits)
        self._extra = {}
        self._task = task
        self._own = model.generation_config
        ends = self._own.eos_token_id
        self._ends = frozenset(ends if isinstance(ends, list) else [ends])
        self._longest: int | None = getattr(model.config, "max_position_embeddings", None)
        self._cancelled = Event()

    def rows(self, item: Item) -> list[Row]:
        wish = item.parameters
        assert isinstance(wish, Text2TextParameters)
        if wish.truncation == "only_second":
            raise Invalid("there is one text, and no second", pointer="/parameters/truncation")
        told = guide(self._task, item.inputs, wish, self._model.config, self._encoder)
        row = self._encoder.encode(
            told.prefix + item.inputs, cut=wish.truncation != "do_not_truncate", language=told.language
        )
        settings = settle(_joined(wish), self._own, told.generation, self._longest)
        return [_Asked(row.ids, row.types, None, settings)]

    def run(self, items: Sequence[Item], cancelled: Event) -> list[Result]:
        self._cancelled = cancelled
        return super().run(items, cancelled)

    def compute(self, rows: Sequence[Row]) -> list[_Written]:
        alike: dict[str, list[int]] = {}
        for n, row in enumerate(rows):
            assert isinstance(row, _Asked)
            key = json.dumps([row.settings.settled, row.settings.drawn], sort_keys=True)
            alike.setdefault(key, []).append(n)
        written: dict[int, _Written] = {}
        for group in alike.values():
            some = [row for n in group if isinstance(row := rows[n], _Asked)]
            beams = some[0].settings.settled.get("num_beams", self._own.num_beams or 1)
            most = max(1, self._limits.batch // beams)
            for begin in range(0, len(some), most):
                texts = self._generate(some[begin : begin + most])
                written.update(zip(group[begin : begin + most], texts, strict=True))
        return [written[n] for n in range(len(rows))]

    def finish(self, item: Item, rows: Sequence[Row], outputs: Sequence[_Written]) -> Any:
        (written,) = outputs
        if self._cancelled.is_set():
            raise Unavailable("the computation was cancelled")
        if written.broken:
            raise no_number()
        wish = item.parameters
        assert isinstance(wish, Text2TextParameters)
        text = self._encoder.tokenizer.decode(
            written.tokens,
            skip_special_tokens=True,
            clean_up_tokenization_spaces=wish.clean_up_tokenization_spaces,
        )
        match self._task:
            case Task.SUMMARIZATION:
                output: Any = SummaryText(summary_text=text)
            case Task.TRANSLATION:
                output = TranslationText(translation_text=text)
            case _:
                output = GeneratedText(generated_text=text)
        read, made = sum(map(len, rows)), len(written.tokens)
        return Made(
            output,
            usage=TextUsage(input_tokens=read, output_tokens=made),
            finish=Finish(
                reason=written.reason,
                usage=Usage(prompt_tokens=read, completion_tokens=made),
            ),
        )

    def _generate(self, rows: Sequence[_Asked]) -> list[_Written]:
        settings = [row.settings for row in rows]
        watch = Watch()
        sequences = self._model.generate(
            **self._encoder.pad(rows, self._device),
            generation_config=configure(self._own, settings[0]),
            logits_processor=processors(settings, watch),
            stopping_criteria=StoppingCriteriaList([Cancelled(self._cancelled)]),
        )
        written = []
        for sequence, broken in zip(sequences.tolist(), watch.broken(len(rows)), strict=True):
            # The first is what the decoder begins with.
            made = sequence[1:]
            end = next((n for n, token in enumerate(made) if token in self._ends), None)
            made = made if end is None else made[: end + 1]
            written.append(_Written(made, "length" if end is None else "stop", broken))
        return written


def _joined(wish: Text2TextParameters) -> GenerateParameters:
    """Those of `generate_parameters`, and over them those that stand beside it."""
    inner = wish.generate_parameters.model_dump(exclude_none=True) if wish.generate_parameters else {}
    outer = wish.model_dump(include=set(GenerateParameters.model_fields), exclude_none=True)
    return GenerateParameters(**{**inner, **outer})
