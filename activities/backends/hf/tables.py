"""Questions about tables, by TAPAS: which cells answer, and what is made of them (a sum, a count)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForTableQuestionAnswering, TableQuestionAnsweringPipeline

from activities.backends.hf.encoding import Encoder, Row, too_long
from activities.backends.hf.loading import Loaded, memory_of, pretrained, set_up
from activities.backends.hf.rows import RowsRunner, finite
from activities.inference_ports import Item, LoadContext, LoadedModel
from goatherd.contracts.inference import Limits, ModelSpec
from goatherd.contracts.inference_tasks import TableAnswer, TableQuestion, TableQuestionParameters, Task
from goatherd.errors import Invalid

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def load(name: str, spec: ModelSpec, folder: Path, context: LoadContext) -> LoadedModel:
    import pandas  # noqa: F401 - the tokenizer needs it: said here rather than at the first question

    set_up(context)
    model = pretrained(AutoModelForTableQuestionAnswering, spec, folder)
    runner = TableQuestions(model, Encoder.load(folder, model), spec.limits)
    return Loaded(memory_of(model), {Task.TABLE_QUESTION_ANSWERING: runner})


class TableQuestions(RowsRunner[tuple[torch.Tensor, ...]]):
    """Each question by itself; read and answered by the pipeline of transformers, computed together.

    A table that does not fit is refused, or with `truncation` loses rows at its end. `sequential` and
    `padding` change nothing for one question.
    """

    def __init__(self, model: Any, encoder: Encoder, limits: Limits) -> None:
        super().__init__(model, encoder, limits)
        pipeline: Any = TableQuestionAnsweringPipeline
        self._pipeline = pipeline(model=model, tokenizer=encoder.tokenizer, device=model.device)

    def rows(self, item: Item) -> list[Row]:
        import pandas

        wish, asked = item.parameters, item.inputs
        assert isinstance(wish, TableQuestionParameters)
        assert isinstance(asked, TableQuestion)
        table = pandas.DataFrame(asked.table, dtype=object)
        try:
            made = self._pipeline.preprocess(
                {"table": table, "query": asked.query},
                padding=False,
                truncation="drop_rows_to_fit" if wish.truncation else "do_not_truncate",
            )
        except ValueError as error:
            # The tokenizer's own: more rows than it can number, or no room even without any.
            said = f"the table does not fit: {str(error).lower()}"
            raise Invalid(said, code="too-long", pointer="/inputs/table") from error
        ids = made["input_ids"][0].numpy().astype(np.int32)
        if len(ids) > self._encoder.window:
            raise too_long(len(ids), self._encoder.window, "/inputs/table")
        return [Row(ids, None, made)]

    def compute(self, rows: Sequence[Row]) -> list[tuple[torch.Tensor, ...]]:
        padded = {
            name: torch.nn.utils.rnn.pad_sequence(
                [row.encoding[name][0] for row in rows], batch_first=True
            ).to(self._device)
            for name in _INPUTS
        }
        output = self.forward(padded)
        computed: list[tuple[torch.Tensor, ...]] = []
        for n, row in enumerate(rows):
            logits = output.logits[n : n + 1, : len(row)].float().cpu()
            if output.logits_aggregation is None:
                computed.append((logits,))
            else:
                computed.append((logits, output.logits_aggregation[n : n + 1].float().cpu()))
        return computed

    def finish(
        self, item: Item, rows: Sequence[Row], outputs: Sequence[tuple[torch.Tensor, ...]]
    ) -> TableAnswer:
        for scores in outputs[0]:
            finite(scores.numpy())
        made = rows[0].encoding
        answer = self._pipeline.postprocess(
            {
                "model_inputs": {name: made[name] for name in _INPUTS},
                "table": made["table"],
                "outputs": outputs[0],
            }
        )
        return TableAnswer(
            answer=answer["answer"],
            coordinates=[(int(row), int(column)) for row, column in answer["coordinates"]],
            cells=[str(cell) for cell in answer["cells"]],
            aggregator=answer.get("aggregator"),
        )
