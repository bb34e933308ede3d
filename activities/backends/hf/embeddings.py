"""Vectors of texts, and how alike texts are by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel

from activities.backends.hf.encoding import Encoder, Row
from activities.backends.hf.loading import Loaded, memory_of, pretrained, set_up
from activities.backends.hf.packing import pack_for_texts
from activities.backends.hf.rows import RowsRunner, finite
from activities.backends.hf.sentence_transformers import Recipe, pool, read_recipe
from activities.inference_ports import Item, LoadContext, LoadedModel
from goatherd.contracts.inference import Limits, ModelSpec
from goatherd.contracts.inference_tasks import FeatureParameters, SentencePairs, Task, Vectors, tasks_of
from goatherd.errors import Invalid

Numbers = np.ndarray[Any, np.dtype[np.float32]]


def load(name: str, spec: ModelSpec, folder: Path, context: LoadContext) -> LoadedModel:
    set_up(context)
    recipe = read_recipe(folder)
    model = pretrained(AutoModel, spec, folder)
    if model.config.is_encoder_decoder:
        # Of T5 and its like only the encoder makes vectors of a text.
        model = model.get_encoder()
    recipe.after.to(model.device).eval().requires_grad_(False)
    encoder = Encoder.load(folder, model, most=recipe.max_seq_length)
    kinds = {Task.FEATURE_EXTRACTION: Features, Task.SENTENCE_SIMILARITY: Similarities}
    runners = {task: kinds[task](model, encoder, spec.limits, recipe) for task in tasks_of(spec.task)}
    memory = memory_of(model, recipe.after)
    pack_for_texts(model, encoder)
    return Loaded(memory, runners)


@dataclass(frozen=True, slots=True, eq=False)
class _Text(Row):
    """A row, and what is wished for its vectors."""

    wish: FeatureParameters = field(default_factory=FeatureParameters)
    prompt: int = 0
    """Tokens of the prompt that are left out of pooling, those before it included."""


class _Embedder(RowsRunner[Numbers]):
    """Rows to vectors, all of a batch in one pass whatever is wished for each."""

    def __init__(self, model: Any, encoder: Encoder, limits: Limits, recipe: Recipe) -> None:
        super().__init__(model, encoder, limits)
        self._recipe = recipe

    def text(self, text: str, wish: FeatureParameters, pointer: str) -> _Text:
        recipe = self._recipe
        prompt = self._prompt(wish)
        shown = (prompt + text).lower() if recipe.lower else prompt + text
        row = self._encoder.encode(shown, cut=wish.truncate, side=wish.truncation_direction, pointer=pointer)
        apart = 0
        if prompt and not recipe.prompt_counts:
            # The last special token stands behind the text, not behind the prompt.
            apart = min(len(self._encoder.encode(prompt)) - self._behind(), len(row) - 1)
        return _Text(row.ids, row.types, None, wish, apart)

    def compute(self, rows: Sequence[Row]) -> list[Numbers]:
        padded = self._encoder.pad(rows, self._device)
        vectors = self.forward(padded).last_hidden_state.float()
        mask = padded["attention_mask"]
        places = self._encoder.unpadded(rows)
        made: list[Numbers | None] = [None] * len(rows)
        alike: dict[tuple[object, ...], list[int]] = {}
        for n, row in enumerate(rows):
            assert isinstance(row, _Text)
            alike.setdefault((row.wish.pooling, row.wish.normalize, row.wish.dimensions), []).append(n)
            if row.prompt:
                mask[n, places[n].start or 0 : (places[n].start or 0) + row.prompt] = 0
        for group in alike.values():
            first = rows[group[0]]
            assert isinstance(first, _Text)
            if first.wish.pooling == "none":
                for n in group:
                    made[n] = _shaped(vectors[n, places[n]], first.wish, bool(first.wish.normalize))
                continue
            whole = len(group) == len(rows)
            pooled = self._pooled(
                vectors if whole else vectors[group], mask if whole else mask[group], first.wish
            )
            for n, vector in zip(group, pooled, strict=True):
                made[n] = vector
        return [vector for vector in made if vector is not None]

    def _pooled(self, vectors: torch.Tensor, mask: torch.Tensor, wish: FeatureParameters) -> Numbers:
        assert wish.pooling != "none"
        poolings = (wish.pooling,) if wish.pooling else self._recipe.poolings
        pooled = torch.cat([pool(pooling, vectors, mask) for pooling in poolings], dim=1)
        normalize = self._recipe.normalize if wish.normalize is None else wish.normalize
        return _shaped(self._recipe.after(pooled), wish, normalize)

    def _prompt(self, wish: FeatureParameters) -> str:
        name = wish.prompt_name or self._recipe.default_prompt
        if name is None:
            return ""
        if name not in self._recipe.prompts:
            known = ", ".join(self._recipe.prompts) or "none"
            raise Invalid(
                f"the model has no prompt {name!r}, only: {known}", pointer="/parameters/prompt_name"
            )
        return self._recipe.prompts[name]

    def _behind(self) -> int:
        """Special tokens behind a text."""
        row = self._encoder.encode("a", keep=True)
        return int(row.encoding.special_tokens_mask[-1]) if row.encoding is not None else 1


class Features(_Embedder):
    """One vector a text, or one a token without pooling."""

    def rows(self, item: Item) -> list[Row]:
        wish = item.parameters
        assert isinstance(wish, FeatureParameters)
        size: int = self._model.config.hidden_size
        if wish.dimensions and wish.pooling == "none" and wish.dimensions > size:
            raise _too_many(size)
        return [self.text(item.inputs, wish, "/inputs")]

    def finish(self, item: Item, rows: Sequence[Row], outputs: Sequence[Numbers]) -> Vectors:
        wish = item.parameters
        assert isinstance(wish, FeatureParameters)
        vectors = finite(outputs[0])
        if wish.dimensions and wish.dimensions > vectors.shape[-1]:
            raise _too_many(vectors.shape[-1])
        return Vectors(
            shape=list(vectors.shape), data=vectors.astype("<f4", copy=False).tobytes(), tokens=len(rows[0])
        )


class Similarities(_Embedder):
    """How alike each sentence is to the source sentence: by the cosine, or what the model's files name.
    Distances are given with the sign turned, so that more is more alike."""

    def rows(self, item: Item) -> list[Row]:
        wish, pairs = item.parameters, item.inputs
        assert isinstance(wish, FeatureParameters)
        assert isinstance(pairs, SentencePairs)
        if wish.pooling == "none":
            raise Invalid("sentences are compared by one vector each", pointer="/parameters/pooling")
        rows = [self.text(pairs.source_sentence, wish, "/inputs/source_sentence")]
        for n, sentence in enumerate(pairs.sentences):
            rows.append(self.text(sentence, wish, f"/inputs/sentences/{n}"))
        return list(rows)

    def finish(self, item: Item, rows: Sequence[Row], outputs: Sequence[Numbers]) -> list[float]:
        source, sentences = outputs[0], np.stack(outputs[1:])
        match self._recipe.similarity:
            case "cosine":
                lengths = np.linalg.norm(sentences, axis=1) * np.linalg.norm(source)
                scores = sentences @ source / np.maximum(lengths, 1e-12)
            case "dot":
                scores = sentences @ source
            case "euclidean":
                scores = -np.linalg.norm(sentences - source, axis=1)
            case "manhattan":
                scores = -np.abs(sentences - source).sum(axis=1)
        return [float(score) for score in finite(scores)]


def _shaped(vectors: torch.Tensor, wish: FeatureParameters, normalize: bool) -> Numbers:
    """The vectors' first dimensions if only these are wished for, then of length 1 if that is."""
    vectors = vectors[..., : wish.dimensions]
    if normalize:
        vectors = torch.nn.functional.normalize(vectors, dim=-1)
    shaped: Numbers = vectors.cpu().numpy()
    return shaped


def _too_many(size: int) -> Invalid:
    return Invalid(f"the model has only {size} dimensions", pointer="/parameters/dimensions")
