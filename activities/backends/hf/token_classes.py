"""Classes of a text's tokens: named entities, parts of speech and the like."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForTokenClassification, TokenClassificationPipeline
from transformers.pipelines.token_classification import AggregationStrategy

from activities.backends.hf.encoding import Encoder, Row
from activities.backends.hf.loading import Loaded, memory_of, pretrained, set_up
from activities.backends.hf.packing import pack_for_texts
from activities.backends.hf.rows import RowsRunner, finite
from activities.inference_ports import Item, LoadContext, LoadedModel
from goatherd.contracts.inference import Limits, ModelSpec
from goatherd.contracts.inference_tasks import Task, TokenClass, TokenClassificationParameters
from goatherd.errors import Invalid

Logits = np.ndarray[Any, np.dtype[np.float32]]


def load(name: str, spec: ModelSpec, folder: Path, context: LoadContext) -> LoadedModel:
    set_up(context)
    model = pretrained(AutoModelForTokenClassification, spec, folder)
    encoder = Encoder.load(folder, model)
    runner = TokenClasses(model, encoder, spec.limits)
    memory = memory_of(model)
    pack_for_texts(model, encoder)
    return Loaded(memory, {Task.TOKEN_CLASSIFICATION: runner})


class TokenClasses(RowsRunner[Logits]):
    """Without `stride` a text is cut at the window's end; with it, it is read in windows that overlap.

    Tokens are put together to entities by the pipeline of transformers.
    """

    def __init__(self, model: Any, encoder: Encoder, limits: Limits) -> None:
        super().__init__(model, encoder, limits)
        pipeline: Any = TokenClassificationPipeline
        self._pipeline = pipeline(model=model, tokenizer=encoder.tokenizer, device=model.device)

    def rows(self, item: Item) -> list[Row]:
        wish = item.parameters
        assert isinstance(wish, TokenClassificationParameters)
        if not self._encoder.fast and wish.aggregation_strategy not in ("none", "simple"):
            raise Invalid(
                "the model's tokenizer does not know words: use none or simple",
                pointer="/parameters/aggregation_strategy",
            )
        if wish.stride is None:
            return [self._encoder.encode(item.inputs, keep=True)]
        if wish.aggregation_strategy == "none":
            raise Invalid("windows need an aggregation_strategy", pointer="/parameters/stride")
        if not self._encoder.fast or wish.stride >= self._encoder.room():
            raise Invalid(
                f"the model's windows can't share {wish.stride} tokens, they have {self._encoder.room()}",
                pointer="/parameters/stride",
            )
        return self._encoder.windows(item.inputs, size=self._encoder.window, stride=wish.stride)

    def compute(self, rows: Sequence[Row]) -> list[Logits]:
        logits = self.forward(self._encoder.pad(rows, self._device)).logits.float().cpu().numpy()
        places = self._encoder.unpadded(rows)
        return [logits[n, place] for n, place in enumerate(places)]

    def finish(self, item: Item, rows: Sequence[Row], outputs: Sequence[Logits]) -> list[TokenClass]:
        wish = item.parameters
        assert isinstance(wish, TokenClassificationParameters)
        windows = [
            self._window(item.inputs, row, finite(logits)) for row, logits in zip(rows, outputs, strict=True)
        ]
        found = self._pipeline.postprocess(
            windows, AggregationStrategy(wish.aggregation_strategy), wish.ignore_labels
        )
        return [TokenClass(**{**one, "score": float(one["score"])}) for one in found]

    def _window(self, text: str, row: Row, logits: Logits) -> dict[str, Any]:
        """As the pipeline's own forward gives it: a batch of one."""
        if row.encoding is not None:
            special, offsets = row.encoding.special_tokens_mask, [row.encoding.offsets]
        else:
            tokenizer = self._encoder.tokenizer
            special = tokenizer.get_special_tokens_mask(row.ids.tolist(), already_has_special_tokens=True)
            offsets = None
        return {
            "logits": torch.from_numpy(logits)[None],
            "input_ids": row.ids[None],
            "special_tokens_mask": torch.tensor([special]),
            "offset_mapping": offsets,
            "sentence": text,
        }
